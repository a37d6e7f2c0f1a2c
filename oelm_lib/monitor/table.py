"""The table of runs, as HTML that does not wrap."""

import fnmatch
from collections import Counter
from html import escape
from typing import Any

from oelm_lib.markup import Html, html_table
from oelm_lib.runs.overview import COLUMNS, cell_text
from oelm_lib.runs.schema import ACTIVE

LEFT_ALIGNED = ("run", "state", "device", "reason")
STATES = {
    "every state": "",
    "in progress": "active",
    "done": "done",
    "stopped": "stopped",
    "failed": "failed",
    "queued": "queued",
}
"""Choices of a filter -> what select_rows takes."""
STATE_CLASSES = {"done": "good", "failed": "bad", "dead?": "bad", "unreadable": "bad"} | {
    state: "unsure" for state in ACTIVE
}
NO_RUNS = "no such runs yet; start one: oelm run DEMO-01"


def select_rows(
    rows: list[dict[str, Any]], words: str = "", state: str = ""
) -> list[dict[str, Any]]:
    """Return the rows that match a filter.

    Args:
        rows: Of runs.overview.overview.
        words: Parts of the run's name or globs, separated by spaces; a row matches any of them.
        state: State of the run, `active` for all states of a run in progress, or "" for every one.
    """
    patterns, states = name_patterns(words), states_of(state)
    return [
        row
        for row in rows
        if (not patterns or any(fnmatch.fnmatch(row["run"], pattern) for pattern in patterns))
        and (not state or row["state"] in states)
    ]


def name_patterns(words: str) -> list[str]:
    """Return the glob of each word of a filter; a word without `*?[` may stand anywhere."""
    return [word if set(word) & set("*?[") else f"*{word}*" for word in words.split()]


def states_of(state: str) -> tuple[str, ...]:
    """Return the states that a choice of STATES means."""
    return ACTIVE if state == "active" else (state,)


def run_table(rows: list[dict[str, Any]]) -> Html:
    """Return the rows of runs.overview.overview as an HTML table under a count of the states.

    Columns without a value are left out. The table scrolls sideways where it is too wide.
    """
    if not rows:
        return Html(f"<p>{escape(NO_RUNS)}</p>")
    counts = Counter(row["state"] for row in rows)
    count = f"{len(rows)} runs: " + ", ".join(f"{n} {state}" for state, n in counts.items())
    texts = [{key: cell_text(key, row) for key in COLUMNS} for row in rows]
    columns = [
        (key, heading or "note")
        for key, heading in COLUMNS.items()
        if any(row[key] for row in texts)
    ]
    table = html_table(
        [heading for _, heading in columns],
        [[_cell(key, row[key]) for key, _ in columns] for row in texts],
        [_style(key) for key, _ in columns],
    )
    return Html(
        f"<p>{escape(count)}</p><div class='oelm-scroll' style='overflow-x:auto'>{table}</div>"
    )


def _cell(key: str, text: str) -> str:
    """Text of a cell, coloured where it is a state."""
    if key != "state":
        return text
    return Html(f"<span class='{STATE_CLASSES.get(text, '')}'>{escape(text)}</span>")


def _style(key: str) -> str:
    align = "left" if key in LEFT_ALIGNED else "right"
    return f"text-align:{align};white-space:nowrap"
