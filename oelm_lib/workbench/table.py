"""The table of experiments and runs: choose, order and group rows, and render them as HTML."""

import fnmatch
import math
from collections import Counter
from html import escape

from oelm_lib.markup import Html
from oelm_lib.runs.names import experiment_of, is_glob
from oelm_lib.runs.overview import COLUMNS, cell_text
from oelm_lib.runs.schema import ACTIVE
from oelm_lib.units import counted
from oelm_lib.workbench.rows import NOT_RUN, STARTING, Row
from oelm_lib.workbench.style import STYLE, TABLE, state_html

STATES = {
    "every state": "",
    "in progress": "active",
    "done": "done",
    "stopped": "stopped",
    "failed": "failed",
    "dead?": "dead?",
    "unreadable": "unreadable",
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
RESULTS = ("run", "state", "share", "gap", "best_val_perplexity", "eta_seconds")
"""Columns that a window of 1280 pixels shows without scrolling."""
FACTS = ("arm", "corpus", "tags", "note", "reason")
PROGRESS = ("step", "train_loss", "tokens_per_s", "overrides")
MACHINE = ("steps_per_s", "device", "memory_bytes", "heartbeat_age")
SHOWN = (*RESULTS, *FACTS, *PROGRESS, *MACHINE)
"""Keys of a row that are columns, in their order."""
LEFT_ALIGNED = ("run", "corpus", "state", "device", "overrides", "tags")
CUT = ("arm", "note", "reason")
"""Columns of long text: cut, and shown whole under the pointer."""
CLICKED = "wb-clicked"
"""CSS class of the hidden field that takes the name of a row that was clicked."""
ON_CLICK = (
    "const row = event.target.closest('[data-run]');"
    f" const field = this.closest('.wb-table')?.querySelector('.{CLICKED} input');"
    " if (row &amp;&amp; field) { this.querySelector('.marked')?.classList.remove('marked');"
    " row.classList.add('marked'); field.value = row.dataset.run;"
    " field.dispatchEvent(new Event('input', {bubbles: true})); }"
)


def select_rows(
    rows: list[Row], words: str = "", state: str = "", with_hidden: bool = False
) -> list[Row]:
    """Return the rows that match a filter.

    Args:
        words: Parts or globs, separated by spaces; each must match one of SEARCHED, or the name of
            a run as the table shows it or as commands take it.
        state: State of the run, `active` for all states of a run in progress, or "" for every one.
        with_hidden: Whether runs that their notes hide are among them.
    """
    patterns = [word if is_glob(word) else f"*{word}*" for word in words.split()]
    states = (*ACTIVE, STARTING) if state == "active" else (state,)
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
        heading = str(row.get(group) or "-") if group else ""
        groups.setdefault(heading, []).append(row)
    return dict(sorted(groups.items()))


def count_states(rows: list[Row]) -> str:
    """Return how many runs there are in each state, and how many experiments have none."""
    counts = Counter(row["state"] for row in rows)
    waiting = counts.pop(NOT_RUN, 0)
    parts = [f"{count} {state}" for state, count in counts.items()]
    text = counted(counts.total(), "run") + (f": {', '.join(parts)}" if parts else "")
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
    head = "".join(map(_head_cell, used))
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


def run_id(run: str) -> str:
    """Return the name of a run without its slug: DEMO-02/42, DEMO-02+0123abcd/42 of a rehearsal."""
    folder, slash, seed = run.partition("/seed")
    variant, plus, overrides = folder.partition("+")
    return f"{experiment_of(variant)}{plus}{overrides}{'/' if slash else ''}{seed}"


def _matches(row: Row, pattern: str) -> bool:
    values = [str(row.get(key) or "") for key in SEARCHED]
    values.append(run_id(row["run"]))  # as the table shows it
    if "seed" in row:
        values.append(f"{row['id']}/seed{row['seed']}")  # as commands take it
    return any(fnmatch.fnmatchcase(text.lower(), pattern) for text in values)


def _order(row: Row, sort: str) -> tuple:
    name = row["run"].partition("/")[0], row.get("seed", 0)  # seed10 after seed2
    value = name if sort == "run" else row.get(sort)
    if sort == "changed":
        value = -(value or 0.0)
    is_missing = value is None or (isinstance(value, float) and math.isnan(value))
    return is_missing, 0 if is_missing else value, name


def _head_cell(key: str) -> str:
    return f"<th class='{_side(key)}'>{escape(COLUMNS.get(key) or key)}</th>"


def _cell(key: str, row: Row) -> str:
    whole = cell_text(key, row)
    text = run_id(whole) if key == "run" else whole
    shown = state_html(text) if key == "state" else escape(text)
    title = f" title='{escape(whole)}'" if whole and (key in CUT or text != whole) else ""
    return f"<td class='{_side(key)}'{title}>{shown}</td>"


def _side(key: str) -> str:
    """Return the CSS classes of a column."""
    if key == "arm":
        return "cut arm"
    if key in CUT:
        return "cut"
    return "l" if key in LEFT_ALIGNED else "r"
