"""The sentences of a study's page: its answers, and the questions that are still open."""

from html import escape

from oelm_lib import stats
from oelm_lib.study.ladder import FLAT, GROWS, SHRINKS, Slope
from oelm_lib.study.verdicts import Judgement, Limit, unstable_reason
from oelm_lib.units import counted, format_millions
from oelm_lib.view.gaps import interval_text, percent

SLOPE_WORDS = {FLAT: "it is flat", GROWS: "it grows", SHRINKS: "it shrinks"}


def claim_question(judgements: list[Judgement]) -> str:
    """Return what a claim asks, as HTML; `judgements`: one for each corpus."""
    first = judgements[0]
    limits = ", or even ".join(limit.phrase for limit in first.limits)
    verb = "are they" if first.claim.equal else "is the gap"
    where = ", ".join(judgement.corpus for judgement in judgements)
    return (
        f"<b>{escape(first.name)}</b> against <b>{escape(first.against)}</b>:"
        f" {verb} {escape(limits)}? On {escape(where)}."
    )


def slope_question(slope: Slope) -> str:
    """Return what a slope of the ladder asks, as HTML."""
    return (
        f"<b>{escape(slope.arm)}</b> {_span(slope)}: does the gap grow or shrink?"
        f" On {escape(slope.corpus)}."
    )


def claim_sentence(judgements: list[Judgement]) -> str:
    """Return the answer on the first corpus that is complete, and the verdicts on others so far.

    Args:
        judgements: One for each corpus, of which one is complete.
    """
    first = next(judgement for judgement in judgements if judgement.is_complete)
    limit = _main_limit(first)
    seeds = first.interval.n or first.ended
    text = (
        f"{_change_words(first)} on {escape(first.corpus)}"
        f" ({counted(seeds, 'seed')}{first.late_mark}):"
        f" {escape(_verdict_words(first, limit))}{_stricter_words(first, limit)}."
    )
    others = [
        f"{escape(judgement.corpus)}: {_short_verdict(judgement, limit.bound)}"
        for judgement in judgements
        if judgement is not first and judgement.is_begun
    ]
    if not others:
        return text
    where = f"{limit.text} on" if len(first.limits) > 1 else "on"
    return f"{text} {escape(where[0].upper() + where[1:])} {'; on '.join(others)}."


def _short_verdict(judgement: Judgement, bound: float) -> str:
    """Return the verdict on one limit of a claim, or how many of its seeds have ended."""
    if judgement.is_complete:
        verdict = next(limit.verdict for limit in judgement.limits if limit.bound == bound)
        return verdict if judgement.declared else f"{verdict} ({judgement.planned_text})"
    return f"{judgement.ended} of {judgement.planned} seeds so far"


def _stricter_words(judgement: Judgement, main_limit: Limit) -> str:
    """Return what the next stricter limit says beside one that holds."""
    stricter = [limit for limit in judgement.limits if limit.bound < main_limit.bound]
    if main_limit.verdict != stats.PASS or not stricter:
        return ""
    limit = max(stricter, key=lambda limit: limit.bound)
    if limit.verdict == stats.FAIL:
        return f", but {escape(limit.missed)}"
    return f", and {escape(_verdict_words(judgement, limit))}"


def _change_words(judgement: Judgement) -> str:
    """Return the beginning of a sentence about a claim: what changes, by how much."""
    name, other = f"<b>{escape(judgement.arm)}</b>", f"<b>{escape(judgement.other)}</b>"
    if not judgement.interval.n:
        return f"{name} against <b>{escape(judgement.against)}</b>"
    size, interval = interval_text(judgement.interval), judgement.interval
    if judgement.claim.equal:
        what = "gap to its baseline" if judgement.claim.gaps else "perplexity"
        return f"The {what} of {name} differs from that of {other} by {size}"
    if interval.known and interval.low > 0:
        return f"{name} raises perplexity over {other} by {size.removeprefix('+')}"
    if interval.known and interval.high < 0:
        return f"{name} lowers perplexity against {other} ({size})"
    return f"{name} changes perplexity against {other} by {size}"


def _main_limit(judgement: Judgement) -> Limit:
    """Return the strictest limit that holds, else the loosest."""
    passes = [limit for limit in judgement.limits if limit.verdict == stats.PASS]
    if passes:
        return min(passes, key=lambda limit: limit.bound)
    return max(judgement.limits, key=lambda limit: limit.bound)


def _verdict_words(judgement: Judgement, limit: Limit) -> str:
    """Return a verdict in words."""
    subject = "they are" if judgement.claim.equal else "that is"
    if limit.verdict in (stats.PASS, stats.YES):
        return f"{subject} {limit.phrase} ({limit.verdict})"
    if limit.verdict in (stats.FAIL, stats.NO):
        return f"{subject} {limit.missed} ({limit.verdict})"
    if limit.verdict == stats.UNSTABLE:
        return f"no verdict on '{limit.text}', since {unstable_reason(judgement.interval)}"
    return f"whether {subject} {limit.phrase} stays open{_in_brackets(limit.to_decide)}"


def slope_sentence(slope: Slope) -> str:
    """Return the answer on a slope of the ladder, as HTML: gaps of the smallest and largest size.

    The change is one of the perplexity's ratio to the baseline, not a share of the gap.
    """
    gap = f"gap of <b>{escape(slope.arm)}</b>"
    verdict = f"on {escape(slope.corpus)}{slope.late_mark}: {escape(_slope_words(slope))}."
    if not slope.interval.n:
        return f"{_span(slope).capitalize()} the {gap} {verdict}"
    small, large = (
        f"{percent(size_gap.interval.gap, 1)} at {format_millions(size_gap.parameters)} million"
        for size_gap in (slope.sizes[0], slope.sizes[-1])
    )
    return (
        f"The {gap} is {small} parameters and {large} {verdict} For each factor of ten,"
        f" perplexity relative to the baseline changes by {interval_text(slope.interval)}."
    )


def _slope_words(slope: Slope) -> str:
    """Return the verdict on a slope in words."""
    if slope.verdict == stats.UNSTABLE:
        return f"no verdict, since {unstable_reason(slope.interval)}"
    stays_open = f"whether it is flat stays open{_in_brackets(slope.to_decide)}"
    return SLOPE_WORDS.get(slope.verdict, stays_open)


def _span(slope: Slope) -> str:
    first, last = (format_millions(slope.sizes[place].parameters) for place in (0, -1))
    return f"from {first} to {last} million parameters"


def _in_brackets(text: str) -> str:
    return f" ({text})" if text else ""
