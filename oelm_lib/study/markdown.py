"""The first table of a study as Markdown, for a README."""

from oelm_lib import stats
from oelm_lib.study.page import MOST_COLUMNS, Study
from oelm_lib.study.verdicts import Judgement
from oelm_lib.view.tables import interval_text


def markdown_table(study: Study) -> str:
    """Return corpora down, the main claims across: gap, interval, seeds and verdicts.

    Claims and corpora without a confirmation run are left out. `oelm study NAME --table` prints it;
    a test fails where README holds another one.
    """
    claims = [study.judged(claim) for claim in study.headline()[:MOST_COLUMNS]]
    begun = [judged for judged in claims if any(one.ended for one in judged)]
    if not begun:
        return "No claim has a confirmation run yet."
    heads = [f"{judged[0].name} against {judged[0].other}" for judged in begun]
    columns = [{one.corpus: one for one in judged} for judged in begun]
    lines = [_row("corpus", heads), _row("---", ["---"] * len(heads))]
    for corpus in study.plan.corpora:
        cells = [column.get(corpus) for column in columns]
        if any(cell and cell.ended for cell in cells):
            lines.append(_row(corpus, [_cell(cell) for cell in cells]))
    return "\n".join(lines)


def _row(name: str, cells: list[str]) -> str:
    return f"| {' | '.join([name, *cells])} |"


def _cell(one: Judgement | None) -> str:
    """Gap, interval, seeds so far and verdicts of a claim on one corpus."""
    if one is None:
        return "–"
    seeds = one.ended
    if not seeds:
        return "not run yet"
    count = f"{seeds} of {one.planned} seeds" if seeds < one.planned else f"{seeds} seeds"
    words = {stats.PASS: "**PASS**", stats.FAIL: "**FAIL**"}
    verdicts = [f"{limit.text}: {words.get(limit.verdict, limit.verdict)}" for limit in one.limits]
    return f"{interval_text(one.interval)}, {count}; {'; '.join(verdicts)}"
