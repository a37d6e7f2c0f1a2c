"""The page of a study: sentences and tables from its plan and records alone."""

from dataclasses import dataclass
from html import escape

from oelm_lib import stats
from oelm_lib.markup import Html, html_table
from oelm_lib.stats import Interval
from oelm_lib.study import verdicts
from oelm_lib.study.grid import Grid
from oelm_lib.study.plan import Plan, read_plan
from oelm_lib.study.records import frozen_plan, read_records, records_path
from oelm_lib.study.schema import Claim
from oelm_lib.study.verdicts import Judgement, Slope
from oelm_lib.view.tables import percent

MOST_SENTENCES = 5
MOST_COLUMNS = 4
COLOURS = {
    stats.PASS: "#0a7a55",
    stats.YES: "#0a7a55",
    stats.FAIL: "#b3372b",
    stats.NO: "#b3372b",
    stats.UNSTABLE: "#7b3f9d",
}
OPEN_COLOUR = "#8a6d00"
"""Background of a verdict that is open."""
WAITING = (verdicts.NOT_RUN, verdicts.INCOMPLETE)
WAITING_COLOUR = "#6b6b6b"


@dataclass(frozen=True)
class Study:
    """A study as its page shows it."""

    name: str
    grid: Grid
    frozen: Plan | None
    judgements: list[Judgement]
    slopes: list[Slope]

    @property
    def plan(self) -> Plan:
        """The plan."""
        return self.grid.plan

    def headline(self) -> list[Claim]:
        """The claims that the sentences and the first table are about."""
        chosen = [claim for claim in self.plan.claims if claim.headline]
        return chosen or list(self.plan.claims)

    def judged(self, claim: Claim) -> list[Judgement]:
        """A claim's judgements, corpus by corpus."""
        return [judgement for judgement in self.judgements if judgement.claim == claim]


def load_study(name: str) -> Study:
    """Read a study's plan and records and judge its claims. Raises UserError."""
    plan, frozen = read_plan(name), frozen_plan(name)
    grid = Grid(plan, read_records(records_path(name)))
    return Study(name, grid, frozen, verdicts.judge(grid, frozen), verdicts.judge_ladder(grid))


# The first screen


def answer(study: Study) -> Html:
    """The question, what was run, the answer in a few sentences, and the first table."""
    plan = study.plan
    items = "".join(f"<li>{sentence}</li>" for sentence in sentences(study))
    return Html(
        f"<p><strong>{escape(plan.question)}</strong></p><p>{escape(_status(study))}</p>"
        f"<ol>{items}</ol>{first_table(study)}{_legend(study)}"
    )


def sentences(study: Study) -> list[str]:
    """Return at most five sentences, each with one number and its interval, as HTML."""
    found = [_sentence(study.judged(claim)) for claim in study.headline()]
    slopes = [_slope_sentence(slope) for slope in study.slopes[:1]]
    return [*found[: MOST_SENTENCES - len(slopes)], *slopes]


def _sentence(judged: list[Judgement]) -> str:
    """One claim on all its corpora: the number on the first that is complete, then the others."""
    complete = [one for one in judged if one.limits[0].verdict not in WAITING]
    if not complete:
        return f"{_subject(judged[0])}: not run yet."
    first = complete[0]
    limit = _telling_limit(first)
    text = (
        f"{_subject(first)} by {interval_text(first.interval)} on {escape(first.corpus)}"
        f" ({_count(first.interval)}): {_words(first.limits[limit])}"
    )
    others = [one for one in judged if one is not first]
    if others:
        told = [f"{escape(one.corpus)}: {one.limits[limit].verdict}" for one in others]
        text += f". The same question on {', '.join(told)}"
    return text + "."


def _subject(one: Judgement) -> str:
    """The beginning of a sentence about a claim."""
    name = f"<b>{escape(one.name)}</b>"
    if one.claim.equal:
        what = "the gap to their baselines" if one.claim.gaps else "perplexity"
        return f"{name} and <b>{escape(one.claim.equal[1])}</b> differ in {what}"
    against = one.baseline or "its baseline"
    verb = "lowers" if one.interval.known and one.interval.high < 0 else "raises"
    return f"{name} {verb} perplexity over <b>{escape(against)}</b>"


def _telling_limit(one: Judgement) -> int:
    """The strictest limit that holds, else the loosest."""
    held = [n for n, limit in enumerate(one.limits) if limit.verdict == stats.PASS]
    limits = one.claim.at_most or (0.0,)
    return min(held or range(len(limits)), key=lambda n: limits[n] * (1 if held else -1))


def _words(limit: verdicts.Limit) -> str:
    """A verdict in words."""
    said = {
        stats.PASS: f"{limit.text} holds",
        stats.YES: f"{limit.text} holds",
        stats.FAIL: f"{limit.text} does not hold",
        stats.NO: f"{limit.text} does not hold",
        stats.UNSTABLE: f"{limit.text} cannot be said: seeds diverged",
        stats.UNKNOWN: f"{limit.text} cannot be said of one seed",
    }
    open_text = f"{limit.text} stays open" + (f" ({limit.seeds})" if limit.seeds else "")
    return escape(said.get(limit.verdict, open_text))


def _slope_sentence(slope: Slope) -> str:
    first, last = slope.sizes[0], slope.sizes[-1]
    span = f"From {first[1] / 1e6:.1f} to {last[1] / 1e6:.1f} million parameters"
    if slope.verdict in WAITING:
        return f"{span}: how the gap of <b>{escape(slope.arm)}</b> changes is not run yet."
    return (
        f"{span} the gap of <b>{escape(slope.arm)}</b> changes by"
        f" {interval_text(slope.interval)} for each factor of ten on {escape(slope.corpus)}:"
        f" {escape(slope.verdict)}{f' ({slope.seeds})' if slope.seeds else ''}."
    )


def interval_text(interval: Interval) -> str:
    """A gap with its interval: +12.3 % [+11.0, +13.6]."""
    if not interval.known:
        return percent(interval.gap) if interval.n else "–"
    low, high = 100 * interval.gap_low, 100 * interval.gap_high
    return f"{100 * interval.gap:+.1f} % [{low:+.1f}, {high:+.1f}]"


def _count(interval: Interval) -> str:
    return f"{interval.n} seeds"


def first_table(study: Study) -> Html:
    """Corpora down, the main comparisons across: gap, interval, seeds and coloured verdicts."""
    claims = study.headline()[:MOST_COLUMNS]
    heads = [_column_head(study.judged(claim)[0]) for claim in claims]
    rows = []
    for corpus in study.plan.corpora:
        cells = [
            next((_cell(one) for one in study.judged(claim) if one.corpus == corpus), "–")
            for claim in claims
        ]
        rows.append([Html(f"<b>{escape(corpus)}</b>"), *cells])
    return html_table(["corpus", *heads], rows, ["text-align:left"] * (1 + len(claims)))


def _column_head(one: Judgement) -> Html:
    other = one.claim.equal[1] if one.claim.equal else one.baseline or "its baseline"
    return Html(f"{escape(one.name)}<br><small>against {escape(other)}</small>")


def _cell(one: Judgement) -> Html:
    gap_text = interval_text(one.interval)
    done = one.interval.n + one.interval.failed
    seeds = f"{done} of {one.planned} seeds" if done < one.planned else f"{done} seeds"
    chips = " ".join(_chip(limit, one) for limit in one.limits)
    return Html(f"{gap_text}<br><small>{seeds}</small><br>{chips}")


def _chip(limit: verdicts.Limit, one: Judgement) -> str:
    """A verdict as coloured words."""
    waiting = limit.verdict in WAITING
    colour = WAITING_COLOUR if waiting else COLOURS.get(limit.verdict, OPEN_COLOUR)
    verdict = limit.verdict
    if verdict == stats.UNSTABLE:
        verdict += f" ({one.interval.failed} of {one.interval.n + one.interval.failed} seeds)"
    look = f"background-color:{colour};color:#ffffff;padding:1px 5px;border-radius:3px"
    return f"<small>{escape(limit.text)}: <span style='{look}'>{escape(verdict)}</span></small>"


def _legend(study: Study) -> str:
    """What the arms of the first table are."""
    names = {
        name
        for claim in study.headline()[:MOST_COLUMNS]
        for one in study.judged(claim)
        for name in (one.arm, one.baseline, claim.arm, *(claim.equal or ()))
    }
    about = {name: item.about for name, item in study.plan.arms.items()}
    about |= {name: item.about for name, item in study.plan.choices.items()}
    items = [f"<b>{escape(n)}</b>: {escape(t)}" for n, t in about.items() if n in names and t]
    return f"<p><small>{' '.join(items)}</small></p>"


def _status(study: Study) -> str:
    """What was run: models, text, tokens and how much of the plan is there."""
    grid, plan = study.grid, study.plan
    left = sum(count for _, _, count in grid.expected_left())
    done = len(grid.records)
    state = f"{done} runs recorded, about {left} to go" if left else f"Complete with {done} runs"
    cell = grid.exploratory_cells()[0]
    cfg = plan.config(cell, plan.start(cell))
    tokens = cfg.train.max_steps * cfg.train.batch_size * cfg.model.max_seq_len
    size = verdicts.parameter_numbers(cfg.model)["total"]
    return (
        f"Models of {size / 1e6:.1f} million parameters, {tokens / 1e6:.1f} million tokens each,"
        f" on {', '.join(plan.corpora)}; every arm at its own tuned learning rate; losses on"
        f" {plan.confirm.split} text, seeds that tuned nothing. {state}."
    )


# How to read it, and what is not shown


def reading(study: Study) -> Html:
    """How to read the numbers, term by term."""
    k = {
        verdicts.family_size(study.plan, claim.family, corpus)
        for claim in study.plan.claims
        for corpus in study.plan.claim_corpora(claim)
    }
    levels = ", ".join(f"{1 - stats.ALPHA / n:.2%} for {n}" for n in sorted(k))
    terms = {
        "gap": "perplexity of the arm over that of its baseline, minus 1; +5 % means that the model"
        " is as unsure as if it chose among 5 % more tokens.",
        "baseline": "the arm named in `against` in the plan, trained on the same text in the same"
        " order from the same seed. Where an addition could help trained Q/K too, it has it.",
        "interval": "Student's t over the paired differences of the seeds. All intervals of a"
        f" family together hold with 95 % (Bonferroni): each at {levels} comparisons. A verdict is"
        " read off the interval, never off the mean.",
        "at most +x %": "PASS: the whole interval is below x. FAIL: it is above. INCONCLUSIVE: x"
        " lies in it.",
        "equal within ±x %": "YES: the whole interval is inside. NO: it is outside. NOT SHOWN:"
        " neither.",
        "UNSTABLE": "a seed of the arm or of its baseline diverged; survivors are not judged.",
        "seeds": "how many would decide an open question with 80 % chance if the true gap is the"
        " one seen, for a spread between the 68 % limits of the one seen.",
        "on this test text": "a verdict is about the test split that was scored. Where the error"
        " over documents is as large as that over seeds, the interval includes both.",
    }
    items = "".join(f"<dt>{escape(a)}</dt><dd>{escape(b)}</dd>" for a, b in terms.items())
    return Html(f"<dl>{items}</dl>")


def not_shown(study: Study) -> Html:
    """What the study does not show."""
    items = [*study.plan.notes, *_limits(study)]
    return Html("<ul>" + "".join(f"<li>{escape(item)}</li>" for item in items) + "</ul>")


def _limits(study: Study) -> list[str]:
    found = []
    data = {record.corpus: record for record in study.grid.records}
    if synthetic := sorted(name for name, one in data.items() if one.data.get("synthetic")):
        found.append(f"{', '.join(synthetic)}: generated text, which says nothing of real text.")
    if samples := sorted(name for name, one in data.items() if one.data.get("sample")):
        found.append(f"{', '.join(samples)}: a sample of the corpus, not all of it.")
    fewest = min(one.planned for one in study.judgements)
    if fewest < 5:
        found.append(f"{fewest} seeds: intervals are wide and their width is partly luck.")
    edges = sorted({f"{arm} on {one.corpus}" for one in study.judgements for arm in one.at_edge})
    if edges:
        found.append(f"Learning rate not tuned to an interior minimum: {'; '.join(edges)}.")
    added = sorted({one.name for one in study.judgements if not one.declared})
    if added:
        found.append(f"Claimed only after confirmation began: {', '.join(added)}.")
    return found
