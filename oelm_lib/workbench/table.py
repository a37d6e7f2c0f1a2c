"""The table of experiments and runs: choose, order and group rows, and render them as HTML."""

import fnmatch
import math
from collections import Counter
from collections.abc import Iterable, Sequence
from html import escape

from oelm_lib.markup import Html, html_table
from oelm_lib.runs.overview import COLUMNS, cell_text
from oelm_lib.runs.schema import ACTIVE
from oelm_lib.view.tables import TONE_COLOURS
from oelm_lib.workbench.rows import NOT_RUN, Row

STATES = {
    "every state": "",
    "in progress": "active",
    "done": "done",
    "stopped": "stopped",
    "failed": "failed",
    "queued": "queued",
    NOT_RUN: NOT_RUN,
}
"""Choices of the filter -> what select_rows takes."""
GROUPS = {"no groups": "", "corpus": "corpus", "arm": "arm", "state": "state", "experiment": "id"}
SORTS = {
    "last change": "changed",
    "name": "run",
    "best perplexity": "best_val_perplexity",
    "gap": "gap",
    "state": "state",
}
SEARCHED = ("run", "arm", "corpus", "tags", "note", "title")
SHOWN = {"run": "run", "state": "state", "arm": "arm", "corpus": "corpus"} | {
    key: heading for key, heading in COLUMNS.items() if key not in ("run", "state", "reason")
}
SHOWN |= {"tags": "tags", "note": "note", "reason": "reason"}
"""Key of a row -> heading of its column."""
LEFT_ALIGNED = ("run", "arm", "corpus", "state", "device", "overrides", "tags", "note", "reason")
CUT = ("note", "reason")
"""Columns of long text: cut, and shown whole under the pointer."""
TONES = {"done": "good", "failed": "bad", "dead?": "bad", "unreadable": "bad"} | {
    state: "unsure" for state in ACTIVE
}
TABLE = "wb"
"""CSS class of the tables."""
CLICKED = "wb-clicked"
"""CSS class of the hidden field that takes the name of a row that was clicked."""
ON_CLICK = (
    "const row = event.target.closest('[data-run]');"
    f" const field = this.closest('.wb-table')?.querySelector('.{CLICKED} input');"
    " if (row &amp;&amp; field) { field.value = row.dataset.run;"
    " field.dispatchEvent(new Event('input', {bubbles: true})); }"
)
LEFT = "text-align:left"
LONG_TEXT = "text-align:left;white-space:normal;min-width:16em"
"""Looks of a column of facts_table."""
STYLE = """<style>
.wb-scroll {max-height:24em; overflow:auto; border:1px solid var(--jp-border-color2,#ccc)}
.wb {border-collapse:collapse; font-size:12px; font-variant-numeric:tabular-nums; line-height:1.5;
 color:var(--jp-ui-font-color1,inherit)}
.wb th {position:sticky; top:0; background:var(--jp-layout-color2,#eee); font-weight:600}
.wb th, .wb td {padding:2px 8px; text-align:right; white-space:nowrap; vertical-align:top}
.wb td {border-top:1px solid var(--jp-border-color3,#e5e5e5)}
.wb .l {text-align:left}
.wb .cut {text-align:left; max-width:28em; overflow:hidden; text-overflow:ellipsis}
.wb + .wb, .wb + p {margin-top:8px}
.wb-table [data-run] {cursor:pointer}
.wb-table [data-run]:hover {background:var(--jp-layout-color2,#eee)}
.wb .marked td {background:var(--jp-layout-color3,#ccc)}
.wb .group td {font-weight:600; text-align:left; background:var(--jp-layout-color2,#eee)}
</style>"""


def select_rows(
    rows: list[Row], words: str = "", state: str = "", with_hidden: bool = False
) -> list[Row]:
    """Return the rows that match a filter.

    Args:
        words: Parts or globs, separated by spaces; each must match one of SEARCHED.
        state: State of the run, `active` for all states of a run in progress, or "" for every one.
        with_hidden: Whether runs that their notes hide are among them.
    """
    patterns = [word if set(word) & set("*?[") else f"*{word}*" for word in words.split()]
    states = ACTIVE if state == "active" else (state,)
    return [
        row
        for row in rows
        if (not state or row["state"] in states)
        and (with_hidden or not row.get("hidden"))
        and all(_matches(row, pattern.lower()) for pattern in patterns)
    ]


def group_rows(rows: list[Row], group: str = "", sort: str = "changed") -> dict[str, list[Row]]:
    """Return heading -> rows, in order.

    Args:
        group: Key of a row, or "" for one group without a heading.
        sort: Key of a row; rows without a value come last. `changed`: the latest first.
    """
    groups: dict[str, list[Row]] = {}
    for row in sorted(rows, key=lambda row: _order(row, sort)):
        groups.setdefault(str(row.get(group) or "-") if group else "", []).append(row)
    return dict(sorted(groups.items())) if group else groups


def count_states(rows: list[Row]) -> str:
    """Return how many runs there are in each state, and how many experiments have none."""
    counts = Counter(row["state"] for row in rows)
    waiting = counts.pop(NOT_RUN, 0)
    parts = [f"{count} {state}" for state, count in counts.items()]
    text = f"{sum(counts.values())} runs" + (f": {', '.join(parts)}" if parts else "")
    return text + (f"; {waiting} experiments not run" if waiting else "")


def table_html(groups: dict[str, list[Row]], marked: str = "") -> Html:
    """Return groups of rows as an HTML table; columns without a value are left out.

    Args:
        marked: `run` of a row that is marked.
    """
    rows = [row for members in groups.values() for row in members]
    if not rows:
        return Html("<p>No such runs or experiments.</p>")
    used = [key for key in SHOWN if any(row.get(key) not in (None, "") for row in rows)]
    head = "".join(f"<th class='{_side(key)}'>{escape(SHOWN[key])}</th>" for key in used)
    body = []
    for heading, members in groups.items():
        if heading:
            name = f"{escape(heading)} ({len(members)})"
            body.append(f"<tr class='group'><td colspan={len(used)}>{name}</td></tr>")
        for row in members:
            cells = "".join(_cell(key, row) for key in used)
            mark = " class='marked'" if marked and row["run"] == marked else ""
            body.append(f"<tr data-run='{escape(str(row['run']))}'{mark}>{cells}</tr>")
    table = f"<thead><tr>{head}</tr></thead><tbody>{''.join(body)}</tbody>"
    return Html(
        f"{STYLE}<div class='wb-scroll'><table class='{TABLE}' onclick=\"{ON_CLICK}\">{table}"
        "</table></div>"
    )


def facts_table(
    head: Sequence[object], rows: Iterable[Sequence[object]], styles: Sequence[str]
) -> Html:
    """Return a small table of words in the look of the table of runs; arguments of html_table."""
    return html_table(head, rows, styles, TABLE)


def state_html(state: str) -> str:
    """Return the name of a state in its colour."""
    tone = TONES.get(state)
    style = f" style='color:{TONE_COLOURS[tone]};font-weight:600'" if tone else ""
    return f"<span class='{tone or 'plain'}'{style}>{escape(state)}</span>"


def warnings_html(lines: list[str]) -> str:
    """Return lines that weaken a comparison, as HTML."""
    style = f"color:{TONE_COLOURS['unsure']}"
    return "".join(f"<p style='{style}'>{escape(line)}</p>" for line in lines)


def _matches(row: Row, pattern: str) -> bool:
    return any(fnmatch.fnmatchcase(str(row.get(key) or "").lower(), pattern) for key in SEARCHED)


def _order(row: Row, sort: str) -> tuple:
    value = row.get(sort)
    if sort == "changed":
        value = -(value or 0.0)
    is_missing = value is None or (isinstance(value, float) and math.isnan(value))
    return is_missing, 0 if is_missing else value, str(row["run"]), row.get("seed", 0)


def _cell(key: str, row: Row) -> str:
    text = cell_text(key, row)
    shown = state_html(text) if key == "state" else escape(text)
    title = f" title='{escape(text)}'" if key in CUT and text else ""
    return f"<td class='{_side(key)}'{title}>{shown}</td>"


def _side(key: str) -> str:
    return "cut" if key in CUT else "l" if key in LEFT_ALIGNED else "r"
