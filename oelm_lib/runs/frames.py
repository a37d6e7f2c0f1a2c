"""Run folders, and the log's own results, as data frames."""

import functools
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd

from oelm_lib.arms import arm_name
from oelm_lib.config import (
    PARAMS,
    Experiment,
    load_config,
    read_yaml,
)
from oelm_lib.errors import UserError
from oelm_lib.runs import reading
from oelm_lib.runs.find import check_names, find_runs
from oelm_lib.runs.names import (
    experiment_of,
    matching_ids,
    parse_patterns,
    run_name,
    seed_of,
)

MEASURED = "measured by this code"
RECORDED = "recorded in the log (other code)"
IDENTITY = ["source", "variant", "run", "id", "arm", "corpus", "tokenizer", "seed"]
"""Columns that identify a run; `variant` is the folder that holds the seeds of one arm."""
LOSSES = [
    "best_val_loss",
    "final_val_loss",
    "final_test_loss",
    "final_bits_per_byte",
    "subset_error",
]
NUMBERS = [*LOSSES, "wall_seconds", "mean_step_seconds", "steps", "tokens", "epochs"]
COLUMNS = [
    *IDENTITY,
    "path",
    "state",
    "reason",
    "experiment",
    "config",
    "max_steps",
    "train_loss",
    "eta_seconds",
    "started",
    "finished",
    *NUMBERS,
    "parameters",
    "frozen",
    "timing",
]
"""Columns of load_runs; `experiment` is an Experiment, `config` the content of config.yaml."""
METRICS = ["event", "step", "tokens", "loss", "seconds", *IDENTITY]
"""Columns of load_metrics where no run has a metric row."""


def load_runs(
    exps: list[str] | str | None = None,
    outputs: Path | str | None = None,
    rehearsals: bool = True,
) -> pd.DataFrame:
    """Read one row per run; `reason` says why a run cannot be read or compared.

    Args:
        exps: Experiment ids or globs, as a list or as text separated by spaces or commas; None:
            all. A glob with `+` names rehearsals, e.g. `DEMO-02*+*`. More: names.matches_run.
        outputs: Folder of the run folders; default config.outputs_dir().
        rehearsals: Whether an id means the rehearsals of its experiment too.

    Returns:
        A frame. Among its columns: `run id arm corpus seed state`; `final_val_loss`,
        `best_val_loss` and `final_test_loss` in nats per token; `final_bits_per_byte`;
        `wall_seconds`, `steps`, `tokens`; `experiment` (an Experiment) and `config` (a dict).

    Raises:
        UserError: No run and no experiment matches one of `exps`.
    """
    check_names([name for name in parse_patterns(exps) if "+" not in name], outputs)
    return load_folders(find_runs(outputs, exps, rehearsals))


def load_folders(paths: list[Path]) -> pd.DataFrame:
    """Return the rows of load_runs for these run folders."""
    return _frame([_row(path) for path in paths])


@functools.cache
def log_results() -> dict[str, Any]:
    """Return the numbers of the log, params/recorded/phase3.yaml."""
    return read_yaml(PARAMS / "recorded" / "phase3.yaml")


def recorded(exps: list[str] | str | None = None) -> pd.DataFrame:
    """Return the log's results as rows of load_runs.

    Losses are the logarithms of its perplexities, in nats; each arm has one seed.
    """
    known = log_results()["experiments"]
    return _frame([_recorded_row(exp) for exp in matching_ids(exps) if exp in known])


def load_metrics(runs: pd.DataFrame) -> pd.DataFrame:
    """Read the metric rows of all runs, each with the columns IDENTITY of its run.

    Args:
        runs: Frame of load_runs or recorded. Runs whose metrics cannot be read are left out.
    """
    frames = []
    for run in runs[runs["experiment"].notna()].itertuples():
        try:
            frame = (
                _recorded_metrics(run) if run.source == RECORDED else reading.read_metrics(run.path)
            )
        except UserError:
            continue
        if len(frame):
            frames.append(frame.assign(**{key: getattr(run, key) for key in IDENTITY}))
    return pd.concat(frames, ignore_index=True) if frames else pd.DataFrame(columns=METRICS)


def identity(experiment: Experiment) -> dict[str, Any]:
    """Return the columns that an experiment alone decides."""
    return {
        "id": experiment.id,
        "arm": arm_name(experiment),
        "corpus": experiment.data.corpus,
        "tokenizer": experiment.data.tokenizer,
        "experiment": experiment,
        "max_steps": experiment.train.max_steps,
    }


def _row(path: Path) -> dict[str, Any]:
    """Return the row of a run folder, whatever is missing or broken in it."""
    reasons: list[str] = []
    # Before config.yaml, which a process writes first: what it has begun is then seen whole.
    status = _read_or_note(reading.read_status, path, reasons)
    waits = status.get("state") == "queued" and not (path / "config.yaml").exists()
    plain = {} if waits else _read_or_note(reading.read_config, path, reasons)
    summary = _read_or_note(reading.read_summary, path, reasons)
    known = _identity_or_note(plain, reasons)
    if summary:
        state = "done"
    elif reasons:
        state = "unreadable"
    else:
        state = reading.true_state(path, status)
    timing = _read_or_note(reading.read_timing, path, reasons)
    folder = path.parent.name
    row = {
        "source": MEASURED,
        "variant": folder,
        "run": run_name(path),
        "id": experiment_of(folder),
        "seed": seed_of(path),
        "path": path,
        "state": state,
        "config": plain,
        "train_loss": _number(status.get("train_loss")),
        "eta_seconds": None if summary else status.get("eta_seconds"),
        "started": plain.get("created"),
        "finished": summary.get("finished"),
        "parameters": plain.get("parameters"),
        "frozen": summary.get("frozen"),
        "timing": timing,
        **{key: _number(summary.get(key)) for key in NUMBERS},
        **known,
    }
    if not summary:
        row["steps"] = _number(status.get("step"))
    row["reason"] = "; ".join(reasons) or _reason(row, status)
    return row


def _read_or_note(
    reader: Callable[[Path], dict[str, Any] | None], path: Path, reasons: list[str]
) -> dict[str, Any]:
    """Return what a reader returns; {} where it fails, and the reason is appended."""
    try:
        return reader(path) or {}
    except UserError as error:
        reasons.append(reading.without_folder(error, path))
        return {}


def _identity_or_note(plain: dict[str, Any], reasons: list[str]) -> dict[str, Any]:
    """Return the identity columns of a config.yaml; {} where it is broken, with a reason."""
    if not plain:
        return {}
    try:
        return identity(reading.recorded_experiment(plain, "config.yaml"))
    except UserError as error:
        reasons.append(str(error))
        return {}


def _reason(row: dict[str, Any], status: dict[str, Any]) -> str:
    """Return why a readable run is not compared, or ""."""
    state = row["state"]
    if state == "done":
        is_finite = math.isfinite(row["final_val_loss"])
        return "" if is_finite else "final_val_loss is missing or not a number"
    if state == "failed":
        return f"failed: {status.get('error')}"
    if state == "empty":
        return "nothing in it yet"
    where = ""
    if row.get("max_steps") and row["steps"] >= 0:
        where = f" at step {row['steps']:,.0f} of {row['max_steps']:,}"
    remedy = "; the same command continues it" if state in ("dead", "stopped") else ""
    return f"{state}{where}{remedy}"


def _recorded_row(exp: str) -> dict[str, Any]:
    """Return the row of an experiment of the log."""
    log, experiment = log_results(), load_config(exp)
    entry = log["experiments"][exp]
    steps = experiment.train.max_steps
    tokens = steps * experiment.step_tokens
    loss = math.log(entry["best_val_perplexity"])
    machine = {
        "device_name": log["machine"]["device_name"],
        "precision": experiment.train.precision,
    }
    return {
        **identity(experiment),
        "source": RECORDED,
        "variant": f"{exp}_recorded",
        "run": f"{exp} (recorded)",
        "seed": log["seed"],
        "state": "done",
        "reason": "",
        "config": {"resolved": machine},
        "started": entry["started"],
        "finished": entry["finished"],
        "best_val_loss": loss,
        "final_val_loss": loss,
        "wall_seconds": entry["wall_seconds"],
        "mean_step_seconds": entry["mean_step_seconds"],
        "steps": steps,
        "tokens": tokens,
        "epochs": tokens / log["train_tokens"][experiment.data.corpus],
        "parameters": log["parameters"][entry["model_type"]],
        "timing": entry,
    }


def _recorded_metrics(run: Any) -> pd.DataFrame:
    """Return the evaluations of an experiment that the log prints."""
    evaluations = log_results()["experiments"][run.id]["evaluations"]
    frame = pd.DataFrame(evaluations, columns=["step", "loss", "perplexity"])
    return frame.assign(
        event="eval", tokens=frame["step"] * (run.tokens / run.steps), seconds=math.nan
    )


def _number(value: Any) -> float:
    """Return a finite number as float, everything else as NaN."""
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return float(value) if is_number and math.isfinite(value) else math.nan


def _frame(rows: list[dict[str, Any]]) -> pd.DataFrame:
    frame = pd.DataFrame(rows, columns=COLUMNS)
    return frame.astype(dict.fromkeys([*NUMBERS, "train_loss"], "float64"))
