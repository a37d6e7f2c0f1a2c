"""Overview of all runs, from status.json and summary.json alone: fast on a slow network disk."""

import functools
import time
from collections import Counter
from pathlib import Path
from typing import Any

from oelm_lib.config import outputs_dir, overrides_text
from oelm_lib.errors import UserError
from oelm_lib.runs.find import find_runs
from oelm_lib.runs.names import experiment_of, run_name
from oelm_lib.runs.reading import (
    read_config,
    read_or_none,
    read_status,
    read_summary,
    true_state,
    without_folder,
)
from oelm_lib.runs.schema import ACTIVE
from oelm_lib.runs.stop import stop_file
from oelm_lib.units import counted, format_duration, format_eta, perplexity

COLUMNS = {
    "run": "run",
    "state": "state",
    "step": "step",
    "share": "%",
    "train_loss": "train loss",
    "best_val_perplexity": "best val ppl",
    "gap": "gap (at step)",
    "steps_per_s": "it/s",
    "tokens_per_s": "tokens/s",
    "eta_seconds": "ETA",
    "device": "device",
    "memory_bytes": "GiB",
    "heartbeat_age": "beat",
    "overrides": "overrides",
    "reason": "",
}
"""Key of a row -> heading of its column in the table of `oelm status`."""
FORMATS = {
    "step": ",",
    "share": ".0%",
    "train_loss": ".4f",
    "best_val_perplexity": ",.2f",
    "steps_per_s": ",.2f",
    "tokens_per_s": ",.0f",
}
LEFT_ALIGNED = ("run", "state", "overrides", "reason")


def overview(
    exps: list[str] | str | None = None, outputs: Path | str | None = None
) -> list[dict[str, Any]]:
    """Return one row per run; `reason` says why a folder cannot be read.

    Args:
        exps, outputs: As find_runs takes them.

    Returns:
        Rows with `run path state reason`, the fields of status.json that _row names, `share` (of
        the steps), `best_val_perplexity` (subset; whole split once done), `heartbeat_age` (seconds)
        and, where the baseline's run with the same seed and overrides has an evaluation at the same
        step, `gap gap_base gap_step`.
    """
    folders = {run_key(path): path for path in find_runs(outputs)}
    # A baseline's status serves all its arms; config.yaml is slow to read.
    status = functools.cache(lambda path: read_status(path) or {})
    config = functools.cache(_first_config)
    rows = []
    for path in find_runs(outputs, exps):
        try:
            row = _row(path, status(path), read_summary(path))
            plain = read_or_none(config, path.parent) if "+" in path.parent.name else None
            row["overrides"] = overrides_text(plain["overrides"]) if plain else ""
            losses = dict(status(path).get("evals", []))
            base = config(path.parent)["experiment"].get("compare_to") if losses else None
            base_path = folders.get((base, *run_key(path)[1:]))
            if base_path:
                base_status = read_or_none(status, base_path) or {}
                row |= _gap(base, losses, dict(base_status.get("evals", [])))
        except UserError as error:
            row = _unreadable(path, error)
        rows.append(row)
    return rows


def table(rows: list[dict[str, Any]], width: int | None = None) -> str:
    """Return the rows as text for a terminal of `width` characters, a count of the states first."""
    if not rows:
        return (
            f"no such runs yet in {outputs_dir()}; start one, e.g. oelm run DEMO-01;"
            " `oelm run` lists all experiments"
        )
    counts = Counter(row["state"] for row in rows)
    states = ", ".join(f"{count} {state}" for state, count in counts.items())
    lines = [f"{counted(len(rows), 'run')}: {states}"]
    cells = [{key: cell_text(key, row) for key in COLUMNS} for row in rows]
    used = [key for key in COLUMNS if any(line[key] for line in cells)]
    sizes = {key: max(len(line[key]) for line in [COLUMNS, *cells]) for key in used}
    for line in [COLUMNS, *cells]:
        padded = [
            line[key].ljust(sizes[key]) if key in LEFT_ALIGNED else line[key].rjust(sizes[key])
            for key in used
        ]
        lines.append("  ".join(padded).rstrip()[:width])
    return "\n".join(lines)


def run_key(path: Path) -> tuple[str, str, str]:
    """Return (experiment id, hash of the overrides or "", seed folder) of a run folder or name."""
    variant, _, overrides = path.parent.name.partition("+")
    return experiment_of(variant), overrides, path.name


def _first_config(folder: Path) -> dict[str, Any]:
    """Return the first readable config.yaml of a folder's runs. Raises UserError without one."""
    error = None
    for path in sorted(folder.glob("seed*")):
        try:
            return read_config(path)
        except UserError as problem:
            error = problem
    raise error or UserError(f"{folder}: holds no run")


def _unreadable(path: Path, error: UserError) -> dict[str, Any]:
    """Return the row of a folder that cannot be read."""
    return {
        "run": run_name(path),
        "path": str(path),
        "state": "unreadable",
        "reason": without_folder(error, path),
    }


def _row(path: Path, status: dict[str, Any], summary: dict[str, Any] | None) -> dict[str, Any]:
    """Return the row of a run, without its gap."""
    # With a question mark: an old heartbeat does not prove that the process has ended.
    state = "done" if summary else true_state(path, status).replace("dead", "dead?")
    is_active = state in ACTIVE
    best = summary["best_val_loss"] if summary else (status.get("best") or {}).get("loss")
    step = summary["steps"] if summary else status.get("step")
    max_steps = status.get("max_steps")
    age = time.time() - (status.get("heartbeat") or 0)
    job = status.get("job")
    reason = status.get("error") or (f"Slurm job {job}" if job else "")
    if is_active and stop_file(path).exists():
        reason = "asked to save and stop"
    return {
        "run": run_name(path),
        "path": str(path),
        "state": state,
        "step": step,
        "max_steps": max_steps,
        "train_loss": status.get("train_loss"),
        "steps_per_s": status.get("steps_per_s") if is_active else None,
        "tokens_per_s": status.get("tokens_per_s") if is_active else None,
        "eta_seconds": status.get("eta_seconds") if is_active else None,
        "memory_bytes": status.get("memory_bytes") if is_active else None,
        "device": status.get("device"),
        "gpus": status.get("gpus"),
        "budget": status.get("budget"),
        "job": job,
        "best_val_perplexity": perplexity(best) if isinstance(best, int | float) else None,
        "share": step / max_steps if max_steps and step is not None else None,
        "heartbeat_age": max(age, 0.0) if is_active or state == "dead?" else None,
        "reason": reason,
    }


def _gap(base: str, losses: dict[int, float], base_losses: dict[int, float]) -> dict[str, Any]:
    """Return the gap at the last step that both evaluated, on the same validation subset."""
    shared = [step for step in losses if step in base_losses]
    if not shared:
        return {}
    nats = losses[shared[-1]] - base_losses[shared[-1]]
    return {"gap": perplexity(nats) - 1, "gap_base": base, "gap_step": shared[-1]}


def cell_text(key: str, row: dict[str, Any]) -> str:
    """Return one value of a row as text; "" where it is missing."""
    value = row.get(key)
    if value is None:
        return ""
    if key == "gap":
        return f"{value:+.1%} {row['gap_base']} ({row['gap_step']:,})"
    if key == "eta_seconds":
        return format_eta(value).removeprefix("ETA ")
    if key == "device" and row.get("gpus"):
        return f"{value} [{row['gpus']}]"
    if key in FORMATS:
        return format(value, FORMATS[key])
    if key == "memory_bytes":
        return f"{value / 2**30:.1f}"
    return format_duration(value) if key == "heartbeat_age" else str(value)
