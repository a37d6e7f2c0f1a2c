"""The first table of a study as Markdown, for a README."""

from oelm_lib import stats
from oelm_lib.study.page import MOST_COLUMNS, Study, interval_text
from oelm_lib.study.verdicts import Judgement


def markdown_table(study: Study) -> str:
    """Return corpora down, the main claims across: gap, interval, seeds and verdicts.

    Claims and corpora without a confirmation run are left out. `oelm study NAME --table` prints it;
    a test fails where README holds another one.
    """
    claims = [study.judged(claim) for claim in study.headline()[:MOST_COLUMNS]]
    columns = [{one.corpus: one for one in judged} for judged in claims if any(map(_seeds, judged))]
    if not columns:
        return "No claim has a confirmation run yet."
    heads = [_head(next(iter(column.values()))) for column in columns]
    lines = [_row("corpus", heads), _row("---", ["---"] * len(heads))]
    for corpus in study.plan.corpora:
        cells = [column.get(corpus) for column in columns]
        if any(cell and _seeds(cell) for cell in cells):
            lines.append(_row(corpus, [_cell(cell) for cell in cells]))
    return "\n".join(lines)


def _seeds(one: Judgement) -> int:
    """Seeds that have ended, diverged ones included."""
    return one.interval.n + one.interval.failed


def _row(name: str, cells: list[str]) -> str:
    return f"| {' | '.join([name, *cells])} |"


def _head(one: Judgement) -> str:
    if one.claim.equal:
        return f"{one.name} against {one.claim.equal[1]}"
    return f"{one.name} against {one.baseline}" if one.baseline else one.name


def _cell(one: Judgement | None) -> str:
    """Gap, interval, seeds so far and verdicts of a claim on one corpus."""
    if one is None:
        return "–"
    seeds = _seeds(one)
    if not seeds:
        return "not run yet"
    count = f"{seeds} of {one.planned} seeds" if seeds < one.planned else f"{seeds} seeds"
    words = {stats.PASS: "**PASS**", stats.FAIL: "**FAIL**"}
    verdicts = [f"{limit.text}: {words.get(limit.verdict, limit.verdict)}" for limit in one.limits]
    return f"{interval_text(one.interval)}, {count}; {'; '.join(verdicts)}"
