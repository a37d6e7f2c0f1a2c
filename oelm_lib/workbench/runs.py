"""What the workbench shows of the chosen runs: which are drawn, their log, the commands started."""

import os
import time
from html import escape
from pathlib import Path
from urllib.parse import quote

import pandas as pd

from oelm_lib.errors import UserError
from oelm_lib.markup import Html, html_table
from oelm_lib.runs.logs import log_lines
from oelm_lib.runs.overview import cell_text, run_key
from oelm_lib.runs.schema import ACTIVE
from oelm_lib.units import format_duration
from oelm_lib.view.tones import toned
from oelm_lib.workbench.launches import Launch
from oelm_lib.workbench.rows import LIVE, NOT_RUN, Row
from oelm_lib.workbench.style import LEFT, LONG_TEXT, STYLE, TABLE
from oelm_lib.workbench.table import run_id

MOST_DRAWN = 12
"""Runs drawn at once; more lines than that cannot be told apart."""
LOG_LINES = 12
ELAPSED_STEP = 5
"""Seconds after which the shown time of a running command is updated."""
LISTS = {"this experiment": "own", "with its baseline": "baseline", "all experiments": "all"}
"""Which runs the list offers."""


def listed_runs(rows: list[Row], exp: str, which: str = "own") -> list[str]:
    """Return the names of the runs that the list offers.

    Args:
        rows: Of RunRows.read.
        exp: The chosen experiment.
        which: Value of LISTS.
    """
    ids = {exp}
    if which == "baseline":
        ids |= {row["compare_to"] for row in rows if row["id"] == exp}
    started = [row for row in rows if row["state"] != NOT_RUN]
    return [row["run"] for row in started if which == "all" or row["id"] in ids]


def list_label(run: str) -> str:
    """Return the name of a run as tables show it, then its slug: a narrow list cuts the end."""
    slug = run.partition("/")[0].partition("+")[0].partition("_")[2]
    return f"{run_id(run)} {slug}"


def with_baselines(rows: list[Row], chosen: tuple[str, ...]) -> list[Row]:
    """Return the chosen runs, each with its baseline's run."""
    by_name = {row["run"]: row for row in rows}
    arms = [by_name[name] for name in chosen if name in by_name]
    keys = {
        (row["compare_to"], *run_key(Path(row["run"]))[1:]) for row in arms if row.get("compare_to")
    }
    names = {row["run"] for row in arms}
    bases = [
        row
        for row in rows
        if row["state"] != NOT_RUN and row["run"] not in names and run_key(Path(row["run"])) in keys
    ]
    return [*bases, *arms]


def limit_note(chosen: tuple[str, ...]) -> str:
    """Return a line where more runs are chosen than the figures show, else ""."""
    if len(chosen) <= MOST_DRAWN:
        return ""
    line = f"The figures show the last {MOST_DRAWN} of the {len(chosen)} selected runs."
    return toned(line, "unsure", "p")


def progress(rows: list[Row]) -> list[tuple]:
    """Return run, state and step of each row; equal lists mean that no run made progress."""
    return [(row["run"], row["state"], row.get("step")) for row in rows]


def with_budgets(runs: pd.DataFrame, rows: list[Row]) -> pd.DataFrame:
    """Return the runs with the seconds spent so far, as view.budget takes them.

    Args:
        runs: Frame of load_folders.
        rows: The same runs, as RunRows.read has them.
    """
    budgets = {row["run"]: row["budget"] for row in rows if row.get("budget")}
    runs = runs[runs["run"].isin(budgets)]
    spent = [budgets[run] for run in runs["run"]]
    return runs.assign(
        timing=[{"budget": parts} for parts in spent],
        wall_seconds=[sum(parts.values()) for parts in spent],
    )


def progress_html(rows: list[Row]) -> str:
    """Return a bar and a line for each run in progress: ETA, step, loss, gap, speed, memory."""
    units = {
        "eta_seconds": "ETA {}",
        "step": "step {}/{max_steps:,}",
        "train_loss": "loss {}",
        "gap": "gap {}",
        "tokens_per_s": "{} tokens/s",
        "memory_bytes": "{} GiB",
    }
    lines = []
    for row in rows:
        if row["state"] not in LIVE:
            continue
        parts = [run_id(row["run"]), row["state"]]
        parts += [
            unit.format(cell, **row) for key, unit in units.items() if (cell := cell_text(key, row))
        ]
        bar = f"<progress max=1 value={row.get('share') or 0:.3f} style='width:8em'></progress>"
        line = escape(" · ".join(parts))
        lines.append(f"<div title='{escape(row['run'])}'>{bar} {line}</div>")
    return "".join(lines)


def log_html(rows: list[Row]) -> str:
    """Return the last lines of the log of one run: one that trains, else the last to change."""
    if not rows:
        return ""
    active = [row for row in rows if row["state"] in ACTIVE]
    row = max(active or rows, key=lambda row: row["changed"])
    try:
        lines = list(log_lines(Path(row["path"]), LOG_LINES))
    except (UserError, OSError):
        lines = ["no log yet"]
    body = escape("\n".join(lines))
    return (
        f"<b>Log of {escape(row['run'])}</b>"
        f"<pre style='font-size:11px;line-height:1.35;overflow-x:auto'>{body}</pre>"
    )


def launches_html(launches: list[Launch]) -> str:
    """Return commands as an HTML table, each with the last line of its log, its file linked."""
    if not launches:
        return ""
    rows = [
        (
            f"running {_elapsed(launch)}" if launch.is_alive else "ended",
            Html(f"<code>{escape(launch.command)}</code><br>{_outcome(launch)}"),
        )
        for launch in launches
    ]
    return f"{STYLE}{html_table((), rows, (LEFT, LONG_TEXT), TABLE)}"


def page_link(path: Path) -> str:
    """Return a link to a file, relative to the notebook's folder, which JupyterLab opens."""
    address = quote(os.path.relpath(path))
    return f"<a href='{address}' target='_blank'>{escape(path.name)}</a>"


def _elapsed(launch: Launch) -> str:
    """Return the time since a command was started, in steps of ELAPSED_STEP; "" if unknown."""
    if not launch.started:
        return ""
    return format_duration((time.time() - launch.started) // ELAPSED_STEP * ELAPSED_STEP)


def _outcome(launch: Launch) -> str:
    """Return the last line of a log as HTML.

    An error is red. A page or CSV file at the end of the line is a link once the command has ended.
    """
    last_line = launch.last_line().strip()
    if last_line.startswith("oelm: "):
        return toned(last_line, "bad")
    start = last_line.find(" /") + 1
    path = Path(last_line[start:])
    if launch.is_alive or path.suffix not in (".html", ".csv") or not path.is_file():
        return escape(last_line)
    return escape(last_line[:start]) + page_link(path)
