"""The first screen of a study: question, answers and first table, from plan and records alone."""

from html import escape

from oelm_lib import stats
from oelm_lib.markup import Html, html_table, unbroken
from oelm_lib.model.cost import parameter_counts
from oelm_lib.study.cell import BASE_SIZE, Cell
from oelm_lib.study.expected import runs_left
from oelm_lib.study.sentences import (
    claim_question,
    claim_sentence,
    slope_question,
    slope_sentence,
)
from oelm_lib.study.study import Study
from oelm_lib.study.verdicts import WAITING, Judgement, unstable_reason
from oelm_lib.units import counted, format_millions
from oelm_lib.view.gaps import interval_text
from oelm_lib.view.tones import verdict_html

MOST_SENTENCES = 5
UNDECIDED = (stats.INCONCLUSIVE, stats.NOT_SHOWN, stats.UNSTABLE)


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
    """Return how many questions are answered, undecided and not run, and from how many runs.

    A question is one limit of one claim on one corpus, or one slope of the ladder.
    """
    done, left = len(study.grid.records), runs_left(study.grid)
    verdicts = [limit.verdict for judgement in study.latest() for limit in judgement.limits]
    verdicts += [slope.verdict for slope in study.slopes]
    undecided = sum(verdict in UNDECIDED for verdict in verdicts)
    waiting = sum(verdict in WAITING for verdict in verdicts)
    answered = len(verdicts) - undecided - waiting
    runs = f"{done} of about {done + left} runs done" if left else f"all {done} runs done"
    if not answered + undecided:
        return f"No answer yet: {runs}."
    parts = [f"{answered} {'is' if answered == 1 else 'are'} answered"]
    parts += [f"{undecided} undecided"] if undecided else []
    parts += [f"{waiting} {'wait' if waiting > 1 else 'waits'} for runs"] if waiting else []
    return f"Of {counted(len(verdicts), 'question')}, {', '.join(parts)}; {runs}."


def _items(lines: list[str]) -> str:
    """Return the items of a list."""
    return "".join(f"<li>{line}</li>" for line in lines)


def sentences(study: Study) -> list[str]:
    """Return at most MOST_SENTENCES answers, each with a number and its interval, as HTML."""
    claims = list(map(claim_sentence, filter(_is_answered, study.headline())))
    slopes = [slope_sentence(slope) for slope in study.slopes[:1] if slope.is_complete]
    return [*claims[: MOST_SENTENCES - len(slopes)], *slopes]


def open_questions(study: Study) -> list[str]:
    """Return what the sentences will answer and no corpus has the runs for yet, as HTML."""
    slopes = [slope_question(slope) for slope in study.slopes[:1] if not slope.is_complete]
    return [*map(claim_question, _unanswered(study)), *slopes]


def _other_questions(study: Study) -> list[str]:
    """Return at most one line: how many further questions wait for runs."""
    listed = [judgement for judgements in _unanswered(study) for judgement in judgements]
    others = [
        judgement
        for judgement in study.latest()
        if judgement not in listed and not judgement.is_complete
    ]
    slopes = [slope for slope in study.slopes[1:] if not slope.is_complete]
    count = sum(len(judgement.limits) for judgement in others) + len(slopes)
    if not count:
        return []
    if open_questions(study):
        return [f"{count} more, in the table of all claims."]
    names = [judgement.name for judgement in others]
    names += [f"{slope.arm} (size of the model)" for slope in slopes]
    questions = f"{counted(count, 'question')} on {escape('; '.join(dict.fromkeys(names)))}"
    return [f"{questions}, in the table of all claims."]


def _unanswered(study: Study) -> list[list[Judgement]]:
    return [judgements for judgements in study.headline() if not _is_answered(judgements)]


def _is_answered(judgements: list[Judgement]) -> bool:
    """Return whether a claim has all of its seeds on a corpus."""
    return any(judgement.is_complete for judgement in judgements)


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
        gaps = [_cell(judgement, first.planned_text) for judgement in row]
        cells.append([_comparison(first), *gaps])
    heads = ["comparison", *corpora]
    width = f"text-align:left;width:{76.5 / len(corpora):.1f}%"
    styles = ["text-align:left;width:23.5%", *[width] * len(corpora)]
    table = f"<div style='overflow-x:auto'>{html_table(heads, cells, styles)}</div>"
    waiting = [corpus for corpus in study.plan.corpora if corpus not in corpora]
    note = f"<p><small>Not run yet: {escape(', '.join(waiting))}.</small></p>" if waiting else ""
    return Html(table + note)


def _comparison(judgement: Judgement) -> Html:
    """Return what a row compares, and from how many seeds."""
    against = f"against {judgement.against}, {judgement.planned_text}"
    if judgement.is_chosen:
        against = f"{judgement.claim.first}, {against}"
    return Html(f"<b>{escape(judgement.arm)}</b><br><small>{escape(against)}</small>")


def _first_declared(row: list[Judgement | None]) -> Judgement:
    """Return the first judgement of a row whose claim was declared in time, else the first."""
    judgements = [judgement for judgement in row if judgement]
    return next((judgement for judgement in judgements if judgement.declared), judgements[0])


def _cell(judgement: Judgement | None, row_seeds: str) -> Html | str:
    """Return the gap, interval and verdicts of a claim on one corpus.

    Args:
        row_seeds: Seeds as the row names them; the cell names its own only where they differ.
    """
    if judgement is None:
        return "not asked"
    if not judgement.is_begun:
        return "not run yet"
    gap = f"<span style='white-space:nowrap'>{interval_text(judgement.interval)}</span>"
    if judgement.imprecise:
        gap += " <small>rates imprecise</small>"
    if not judgement.is_complete:
        return Html(
            f"{gap}<br><small>{judgement.ended} of {judgement.planned} seeds so far</small>"
        )
    seeds = "" if judgement.planned_text == row_seeds else f"{judgement.planned_text}; "
    return Html(f"{gap}<br><small>{seeds}{_verdicts(judgement)}</small>")


def _verdicts(judgement: Judgement) -> str:
    """Return each limit of a claim and its verdict as coloured words."""
    failed = f"{judgement.interval.failed} of {judgement.ended} seeds"
    reason = f" ({failed if judgement.ended else unstable_reason(judgement.interval)})"
    verdicts = [
        f"<span style='white-space:nowrap'>{escape(limit.short_text)}:"
        f" {verdict_html(limit.verdict)}{reason if limit.verdict == stats.UNSTABLE else ''}</span>"
        for limit in judgement.limits
    ]
    return "; ".join(verdicts)


def _legend(study: Study) -> str:
    """Return what the arms of the first screen are."""
    names = {
        name
        for judgements in study.headline()
        for judgement in judgements
        for name in (judgement.arm, judgement.baseline, *judgement.claim.names)
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
