"""Where all runs stand, from their status.json and summary.json alone: fast on a slow shared file system."""

import functools
import time
from collections import Counter
from pathlib import Path
from typing import Any

from oelm_lib.errors import UserError
from oelm_lib.runs.metrics import perplexity
from oelm_lib.runs.reading import (
    ACTIVE,
    find_runs,
    queue_alive,
    read_config,
    read_status,
    read_summary,
    true_state,
)
from oelm_lib.runs.status import format_duration, format_eta

COPIED = "step max_steps train_loss steps_per_s tokens_per_s eta_seconds device gpus memory_bytes budget job".split()
KEYS = "run state step share train_loss best_val_perplexity gap steps_per_s tokens_per_s eta_seconds device".split()
KEYS += ["memory_bytes", "heartbeat_age", "reason"]
HEADINGS = [
    "run",
    "state",
    "step",
    "%",
    "loss",
    "best ppl",
    "gap (at step)",
    "it/s",
    "tokens/s",
    "ETA",
    "device",
]
HEADINGS += ["GiB", "beat", ""]
FORMATS = {
    "step": ",",
    "share": ".0%",
    "train_loss": ".4f",
    "best_val_perplexity": ",.2f",
    "steps_per_s": ",.2f",
}
FORMATS |= {"tokens_per_s": ",.0f"}


def overview(
    exps: list[str] | str | None = None, outputs: Path | str | None = None
) -> list[dict[str, Any]]:
    """One row a run; a folder that cannot be read says so in `reason`.

    Args:
        exps, outputs: As find_runs takes them.

    Returns:
        Rows with `run path state reason`, the fields of status.json in COPIED, `share` (of the steps),
        `best_val_perplexity` (subset; whole split once done), `heartbeat_age` (seconds) and, where the baseline's
        run with the same seed and overrides has an evaluation at the same step, `gap gap_nats gap_base gap_step`.
    """
    everything = {_key(path): path for path in find_runs(outputs)}
    read = functools.cache(lambda path: read_status(path) or {"state": "empty"})
    baselines: dict[str, str | None] = {}
    rows = []
    for path in find_runs(outputs, exps):
        try:
            status = read(path)
            row = _row(path, status, read_summary(path))
            exp, overrides, seed = _key(path)
            if status.get("evals"):
                if exp not in baselines:  # config.yaml is slow to read, so once for each experiment
                    baselines[exp] = read_config(path)["experiment"].get("compare_to")
                base = everything.get((baselines[exp], overrides, seed))
                row |= _gap(baselines[exp], status, read(base)) if base else {}
        except UserError as error:
            row = {
                "run": f"{path.parent.name}/{path.name}",
                "path": str(path),
                "state": "unreadable",
            }
            row["reason"] = str(error).removeprefix(f"{path}/").removeprefix(f"{path}: ")
        rows.append(row)
    return rows


def table(rows: list[dict[str, Any]], width: int | None = None) -> str:
    """The rows as text for a terminal of `width` characters, a count of the states first."""
    if not rows:
        return "no such runs yet; start one: oelm run DEMO-01"
    counts = Counter(row["state"] for row in rows)
    lines = [
        f"{len(rows)} runs: " + ", ".join(f"{count} {state}" for state, count in counts.items())
    ]
    cells = [HEADINGS] + [[cell_text(key, row) for key in KEYS] for row in rows]
    used = [n for n in range(len(KEYS)) if any(line[n] for line in cells[1:])]
    widths = {n: max(len(line[n]) for line in cells) for n in used}
    for line in cells:
        shown = [
            line[n].ljust(widths[n]) if n < 2 or n == len(KEYS) - 1 else line[n].rjust(widths[n])
            for n in used
        ]
        lines.append("  ".join(shown).rstrip()[:width])
    return "\n".join(lines)


def _key(path: Path) -> tuple[str, str, str]:
    """(experiment id, hash of the overrides or "", seed folder) of a run folder."""
    variant, _, overrides = path.parent.name.partition("+")
    return variant.split("_")[0], overrides, path.name


def _row(path: Path, status: dict[str, Any], summary: dict[str, Any] | None) -> dict[str, Any]:
    state = "done" if summary else true_state(path, status).replace("dead", "dead?")
    age = time.time() - (status.get("heartbeat") or 0)
    # A queued run is only as alive as the queue that holds it; Slurm's queue outlives every process here.
    if state == "queued" and not status.get("job") and not queue_alive(status):
        state = "stopped"
    row = {"run": f"{path.parent.name}/{path.name}", "path": str(path), "state": state}
    row |= {key: status.get(key) for key in COPIED}
    best = (status.get("best") or {}).get("loss")
    if summary:
        best, row["step"] = summary["best_val_loss"], summary["steps"]
    row["best_val_perplexity"] = None if best is None else perplexity(best)
    row["share"] = (
        row["step"] / row["max_steps"] if row["max_steps"] and row["step"] is not None else None
    )
    if state not in ACTIVE:
        row |= dict.fromkeys(("eta_seconds", "steps_per_s", "tokens_per_s", "memory_bytes"))
    row["heartbeat_age"] = max(age, 0.0) if state in (*ACTIVE, "dead?") else None
    return row | {
        "reason": status.get("error") or (f"Slurm job {status['job']}" if status.get("job") else "")
    }


def _gap(base: str, mine: dict[str, Any], theirs: dict[str, Any]) -> dict[str, Any]:
    """Gap to the baseline at the last step both evaluated, on the same subset of validation."""
    losses, others = dict(mine["evals"]), dict(theirs.get("evals") or [])
    shared = [step for step in losses if step in others]
    if not shared:
        return {}
    nats = losses[shared[-1]] - others[shared[-1]]
    return {"gap": perplexity(nats) - 1, "gap_base": base, "gap_step": shared[-1]}


def cell_text(key: str, row: dict[str, Any]) -> str:
    """Format one value of a row for people; "" where it is missing."""
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
