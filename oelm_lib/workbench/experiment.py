"""What an experiment asks, what it changes against its baseline, and what it costs, as HTML."""

import math
from html import escape

import psutil

from oelm_lib.config import Experiment, change_warnings, experiment_path, load_config, skipped_files
from oelm_lib.errors import UserError
from oelm_lib.hardware import largest_gpu_memory
from oelm_lib.markup import Html, html_table
from oelm_lib.model.cost import parameter_counts, step_bytes, step_flops
from oelm_lib.runs.reading import read_or_none, read_timing
from oelm_lib.runs.schema import ACTIVE
from oelm_lib.units import format_bytes, format_duration, significant
from oelm_lib.view.changes import changes_table
from oelm_lib.view.tones import toned
from oelm_lib.workbench.rows import NOT_RUN, Row, modified
from oelm_lib.workbench.style import LEFT, LONG_TEXT, STYLE, TABLE, state_html, warnings_html

MOST_TIMED = 5
"""Runs whose measured time is averaged."""
MOST_LISTED = 12
"""Runs whose states are listed."""


def experiment_html(exp: str, rows: list[Row]) -> Html:
    """Return everything to know of an experiment before it is run.

    Args:
        rows: Of RunRows.read; those of other experiments are left out.
    """
    try:
        experiment = load_config(exp)
    except UserError as error:
        return Html(toned(str(error), "bad", "p"))
    own = [row for row in rows if row["id"] == exp and row["state"] != NOT_RUN]
    warnings = [*memory_warnings(experiment), *change_warnings(exp)]
    facts = (
        ("cost", cost_line(experiment)),
        ("time", time_line(experiment, own)),
        ("runs", _runs_line(own)),
        ("file", escape(f"params/{experiment_path(exp).name}")),
    )
    lines = [(Html(f"<b>{name}</b>"), Html(text)) for name, text in facts]
    return Html(
        f"{STYLE}<p><b>{escape(exp)} {escape(experiment.title)}</b><br>"
        f"{escape(experiment.question)}</p>{warnings_html(warnings)}"
        f"{changes_table(experiment, [LEFT] * 4, TABLE)}"
        f"{html_table((), lines, (LEFT, LONG_TEXT), TABLE)}"
    )


def file_stamps(exp: str) -> list[float]:
    """Return the times of last change of the files of an experiment and of its baseline."""
    try:
        base = load_config(exp).compare_to
    except UserError:
        base = None
    return [modified(experiment_path(name)) for name in (exp, base) if name]


def cost_line(experiment: Experiment) -> str:
    """Return parameters, memory and arithmetic of a run, as `oelm flops` counts them."""
    numbers = parameter_counts(experiment.model)
    flops = step_flops(experiment.model, experiment.train.batch_size)["plain"]
    steps = experiment.train.max_steps
    return (
        f"{numbers['total']:,} parameters, {numbers['frozen']:,} of them frozen;"
        f" {format_bytes(_run_bytes(experiment))} of memory in fp32;"
        f" {_flop_text(flops)} a step, {_flop_text(flops * steps)} in {steps:,} steps"
    )


def memory_warnings(experiment: Experiment) -> list[str]:
    """Return a line where a run needs more memory than this machine, or its GPU, has."""
    needed = _run_bytes(experiment)
    gpu = 0 if experiment.machine.device == "cpu" else largest_gpu_memory()
    here = gpu or psutil.virtual_memory().total
    if needed <= here:
        return []
    where = "this machine's GPU" if gpu else "this machine"
    sizes = f"{format_bytes(needed)} of memory and {where} has {format_bytes(here)}"
    return [f"A run needs {sizes}: it does not fit"]


def time_line(experiment: Experiment, rows: list[Row]) -> str:
    """Return the time of a run: of the done ones, else from the speed of a run in progress.

    Rehearsals are left out: their overrides may make them shorter.
    """
    rows = [row for row in rows if "+" not in row["run"]]
    done = [row for row in rows if row["state"] == "done"][:MOST_TIMED]
    seconds = [wall for row in done if (wall := _wall_seconds(row))]
    if seconds:
        mean = format_duration(sum(seconds) / len(seconds))
        return f"{mean} per run, measured (runs done: {len(seconds)})"
    speeds = [row["steps_per_s"] for row in rows if row.get("steps_per_s")]
    if speeds:
        left = experiment.train.max_steps / speeds[0]
        speed = significant(speeds[0], 2)
        return f"about {format_duration(left)} per run, from {speed} steps per second"
    return "not measured yet: no run of it has been timed on this machine"


def skipped_note() -> str:
    """Return a line on files in params/ that are no experiments (Lab's duplicates), or ""."""
    names = skipped_files()
    if not names:
        return ""
    shown = ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")
    return (
        f"Skipped in params/: {shown}: not named like DEMO-05.yaml. To use such a copy as an"
        " experiment, make a new one from the original instead."
    )


def _run_bytes(experiment: Experiment) -> float:
    return step_bytes(experiment.model, experiment.train.batch_size)["peak"]


def _flop_text(count: float) -> str:
    unit, size = ("PFLOP", 1e15) if count >= 1e15 else ("GFLOP", 1e9)
    return f"{count / size:,.1f} {unit}"


def _wall_seconds(row: Row) -> float | None:
    seconds = (read_or_none(read_timing, row["path"]) or {}).get("total_wall_time")
    return seconds if isinstance(seconds, int | float) and math.isfinite(seconds) else None


def _runs_line(rows: list[Row]) -> str:
    """Return the seeds of an experiment with their states."""
    if not rows:
        return "none yet"
    seeds = []
    for row in rows[:MOST_LISTED]:
        kind = "rehearsal " if "+" in row["run"] else ""
        share = f" {row['share']:.0%}" if row["state"] in ACTIVE and row.get("share") else ""
        seeds.append(f"{kind}seed {row['seed']} {state_html(row['state'])}{share}")
    more = f" and {len(rows) - MOST_LISTED} more" if len(rows) > MOST_LISTED else ""
    return ", ".join(seeds) + more
