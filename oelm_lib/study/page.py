"""The first screen of a study: question, answers and first table, from plan and records alone."""

from html import escape

from oelm_lib import stats
from oelm_lib.markup import Html, html_table, unbroken
from oelm_lib.model.cost import parameter_counts
from oelm_lib.study.cell import BASE_SIZE, Cell
from oelm_lib.study.expected import expected_left
from oelm_lib.study.sentences import (
    claim_question,
    claim_sentence,
    slope_question,
    slope_sentence,
    status,
)
from oelm_lib.study.study import Study
from oelm_lib.study.verdicts import Judgement, unstable_reason
from oelm_lib.units import counted, format_millions
from oelm_lib.view.gaps import interval_text
from oelm_lib.view.tones import verdict_html

MOST_SENTENCES = 5


def answer(study: Study) -> Html:
    """Return the question, what was run, the answer in a few sentences, and the first table."""
    answers = _items(sentences(study))
    questions = _items([*open_questions(study), *_other_questions(study)])
    parts = [
        f"<h1>{escape(study.plan.question)}</h1>",
        f"<p class='lead'>{status_line(study)}</p>",
        f"<p>{escape(_models(study))} {escape(study.plan.about)}</p>",
        f"<ol>{answers}</ol>" if answers else "",
        first_table(study),
    ]
    if questions:
        parts.append(f"<p>Waiting for runs:</p><ul>{questions}</ul>")
    return unbroken(f"<div class='answer'>{''.join(parts)}{_legend(study)}</div>")


def status_line(study: Study) -> str:
    """Return how many questions are answered, undecided and not run, and from how many runs."""
    left = sum(count for _, _, count in expected_left(study.grid))
    return status(study.latest(), study.slopes, len(study.grid.records), left)


def _items(lines: list[str]) -> str:
    """Return the items of a list."""
    return "".join(f"<li>{line}</li>" for line in lines)


def sentences(study: Study) -> list[str]:
    """Return at most MOST_SENTENCES answers, each with a number and its interval, as HTML."""
    claims = [claim_sentence(judged) for judged in study.headline() if _is_answered(judged)]
    slopes = [slope_sentence(one) for one in study.slopes[:1] if one.is_complete]
    return [*claims[: MOST_SENTENCES - len(slopes)], *slopes]


def open_questions(study: Study) -> list[str]:
    """Return what the sentences will answer and no corpus has the runs for yet, as HTML."""
    slopes = [slope_question(one) for one in study.slopes[:1] if not one.is_complete]
    return [*map(claim_question, _unanswered(study)), *slopes]


def _other_questions(study: Study) -> list[str]:
    """Return at most one line: how many further questions wait for runs."""
    listed = [one for judged in _unanswered(study) for one in judged]
    others = [one for one in study.latest() if one not in listed and not one.is_complete]
    slopes = [slope for slope in study.slopes[1:] if not slope.is_complete]
    count = sum(len(one.limits) for one in others) + len(slopes)
    if not count:
        return []
    if open_questions(study):
        return [f"{count} more, in the table of all claims."]
    names = [one.name for one in others] + [f"{slope.arm} (size of the model)" for slope in slopes]
    asked = f"{counted(count, 'question')} on {escape('; '.join(dict.fromkeys(names)))}"
    return [f"{asked}, in the table of all claims."]


def _unanswered(study: Study) -> list[list[Judgement]]:
    return [judged for judged in study.headline() if not _is_answered(judged)]


def _is_answered(judged: list[Judgement]) -> bool:
    """Return whether a claim has all of its seeds on a corpus."""
    return any(one.is_complete for one in judged)


def first_table(study: Study) -> Html:
    """Return the main comparisons down, corpora across: gap, interval, verdicts.

    A corpus without a seed is named in a line below; without any seed there is no table.
    """
    corpora, rows = study.main_table()
    if not rows:
        return Html("")
    cells = []
    for row in rows:
        first = _first_declared(row)
        cells.append([_comparison(first), *(_cell(one, first.planned_text) for one in row)])
    heads = ["comparison", *corpora]
    width = f"text-align:left;width:{76.5 / len(corpora):.1f}%"
    styles = ["text-align:left;width:23.5%", *[width] * len(corpora)]
    table = f"<div style='overflow-x:auto'>{html_table(heads, cells, styles)}</div>"
    waiting = [corpus for corpus in study.plan.corpora if corpus not in corpora]
    note = f"<p><small>Not run yet: {escape(', '.join(waiting))}.</small></p>" if waiting else ""
    return Html(table + note)


def _comparison(one: Judgement) -> Html:
    """Return what a row compares, and from how many seeds."""
    against = f"against {one.against}, {one.planned_text}"
    if one.is_chosen:
        against = f"{one.claim.first}, {against}"
    return Html(f"<b>{escape(one.arm)}</b><br><small>{escape(against)}</small>")


def _first_declared(row: list[Judgement | None]) -> Judgement:
    """Return the first judgement of a row whose claim was declared in time, else the first."""
    known = [one for one in row if one]
    return next((one for one in known if one.declared), known[0])


def _cell(one: Judgement | None, row_seeds: str) -> Html | str:
    """Return the gap, interval and verdicts of a claim on one corpus.

    Args:
        row_seeds: Seeds as the row names them; the cell names its own only where they differ.
    """
    if one is None:
        return "not asked"
    if not one.is_begun:
        return "not run yet"
    gap = f"<span style='white-space:nowrap'>{interval_text(one.interval)}</span>"
    if one.imprecise:
        gap += " <small>rates imprecise</small>"
    if not one.is_complete:
        return Html(f"{gap}<br><small>{one.ended} of {one.planned} seeds so far</small>")
    seeds = "" if one.planned_text == row_seeds else f"{one.planned_text}; "
    return Html(f"{gap}<br><small>{seeds}{_verdicts(one)}</small>")


def _verdicts(one: Judgement) -> str:
    """Return each limit of a claim and its verdict as coloured words."""
    failed = f"{one.interval.failed} of {one.ended} seeds"
    reason = f" ({failed if one.ended else unstable_reason(one.interval)})"
    found = [
        f"<span style='white-space:nowrap'>{escape(limit.short_text)}:"
        f" {verdict_html(limit.verdict)}{reason if limit.verdict == stats.UNSTABLE else ''}</span>"
        for limit in one.limits
    ]
    return "; ".join(found)


def _legend(study: Study) -> str:
    """Return what the arms of the first screen are."""
    names = {
        name
        for judged in study.headline()
        for one in judged
        for name in (one.arm, one.baseline, *one.claim.names)
    }
    declared = study.plan.arms | study.plan.choices
    lines = [
        f"<b>{escape(name)}</b>: {escape(item.about)}"
        for name, item in declared.items()
        if name in names and item.about
    ]
    return f"<p><small>{'<br>'.join(lines)}</small></p>"


def _models(study: Study) -> str:
    """Return what was run: models, text and tokens."""
    plan = study.plan
    cfg = plan.config(Cell(plan.corpora[0], BASE_SIZE, next(iter(plan.arms))))
    tokens = cfg.train.max_steps * cfg.step_tokens
    size = parameter_counts(cfg.model)["total"]
    return (
        f"Models of {format_millions(size)} million parameters, each arm at its own tuned learning"
        f" rate, read {format_millions(tokens)} million tokens of one corpus. A gap is how much"
        " higher the first model's perplexity is than the second's, on"
        f" {plan.confirm.text} text and seeds unused in tuning; in brackets, its confidence"
        " interval (95 %, joint for a family of claims). Claimed late: declared after results."
    )
