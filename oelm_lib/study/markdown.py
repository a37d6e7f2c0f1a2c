"""The first table of a study as Markdown, for a README."""

from oelm_lib import stats
from oelm_lib.study.page import status_line
from oelm_lib.study.study import Study
from oelm_lib.study.verdicts import Judgement
from oelm_lib.view.gaps import interval_text


def markdown_table(study: Study) -> str:
    """Return the main comparisons down, corpora across, and below how much is answered.

    Comparisons and corpora without a confirmation run are left out. `oelm study NAME --table`
    prints it; a test fails where README holds another one.
    """
    corpora, judged = study.main_table()
    if not judged:
        return "No claim has a confirmation run yet."
    rows = [["comparison", *corpora], ["---"] * (1 + len(corpora))]
    for row in judged:
        first = next(one for one in row if one)
        rows.append([f"{first.arm} against {first.other}", *map(_cell, row)])
    return "\n".join([*(f"| {' | '.join(row)} |" for row in rows), "", status_line(study)])


def _cell(one: Judgement | None) -> str:
    """Return the gap, interval, seeds so far and verdicts of a claim on one corpus."""
    if one is None:
        return "–"
    seeds = one.ended
    if not seeds:
        return "not run yet"
    count = f"{seeds} of {one.planned} seeds" if seeds < one.planned else f"{seeds} seeds"
    words = {verdict: f"**{verdict}**" for verdict in (stats.PASS, stats.FAIL, stats.YES, stats.NO)}
    verdicts = [
        f"{limit.short_text}: {words.get(limit.verdict, limit.verdict)}" for limit in one.limits
    ]
    return f"{interval_text(one.interval)}, {count}{one.late_mark}; {'; '.join(verdicts)}"
