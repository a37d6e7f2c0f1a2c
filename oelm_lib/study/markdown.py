"""The first table of a study as Markdown, for a README."""

from oelm_lib import stats
from oelm_lib.study.page import Study
from oelm_lib.study.verdicts import Judgement
from oelm_lib.view.tables import interval_text


def markdown_table(study: Study) -> str:
    """Return corpora down, the main claims across: gap, interval, seeds and verdicts.

    Claims and corpora without a confirmation run are left out. `oelm study NAME --table` prints it;
    a test fails where README holds another one.
    """
    claims, judged = study.main_table()
    if not judged:
        return "No claim has a confirmation run yet."
    rows = [
        ["corpus", *(f"{one.name} against {one.other}" for one in claims)],
        ["---"] * (1 + len(claims)),
        *([corpus, *map(_cell, cells)] for corpus, cells in judged.items()),
    ]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def _cell(one: Judgement | None) -> str:
    """Gap, interval, seeds so far and verdicts of a claim on one corpus."""
    if one is None:
        return "–"
    seeds = one.ended
    if not seeds:
        return "not run yet"
    count = f"{seeds} of {one.planned} seeds" if seeds < one.planned else f"{seeds} seeds"
    words = {verdict: f"**{verdict}**" for verdict in (stats.PASS, stats.FAIL, stats.YES, stats.NO)}
    verdicts = [f"{limit.text}: {words.get(limit.verdict, limit.verdict)}" for limit in one.limits]
    return f"{interval_text(one.interval)}, {count}{one.late_mark}; {'; '.join(verdicts)}"
