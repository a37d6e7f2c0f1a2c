"""Run folders, and the log's own results, as data frames."""

import fnmatch
import functools
import math
from pathlib import Path
from typing import Any

import pandas as pd

from oelm_lib.arms import arm_name
from oelm_lib.config import (
    PARAMS,
    Experiment,
    experiment_ids,
    load_config,
    parse_experiment,
    read_yaml,
)
from oelm_lib.errors import UserError
from oelm_lib.runs import reading as records

MEASURED = "measured by this code"
RECORDED = "recorded in the log (other code)"
IDENTITY = ["source", "variant", "run", "id", "arm", "corpus", "tokenizer", "seed"]
LOSSES = [
    "best_val_loss",
    "final_val_loss",
    "final_test_loss",
    "final_bits_per_byte",
    "subset_error",
]
NUMBERS = [*LOSSES, "wall_seconds", "mean_step_seconds", "steps", "tokens", "epochs"]
OTHERS = (
    "path state reason experiment config max_steps train_loss eta_seconds started finished".split()
)
COLUMNS = [*IDENTITY, *OTHERS, *NUMBERS, "parameters", "frozen", "timing"]
"""`variant` is the run folder's parent: one arm's repeats. `experiment` is an Experiment, `config` the config.yaml."""


def load_runs(
    exps: list[str] | str | None = None,
    outputs: Path | str | None = None,
    rehearsals: bool = True,
) -> pd.DataFrame:
    """Read one row a run; a run that cannot be read or compared says why in `reason`.

    Args:
        exps: Experiment ids or globs, as a list or as text parted by spaces or commas; default all.
            A glob with `+` names rehearsals, e.g. `DEMO-02*+*`.
        outputs: Folder of the run folders; default config.outputs_dir().
        rehearsals: Whether an id means the rehearsals of its experiment too.

    Raises:
        UserError: No run and no experiment matches one of `exps`.
    """
    paths = records.find_runs(outputs, exps, rehearsals)
    ids = [*experiment_ids(), *(path.parent.name.split("_")[0] for path in paths)]
    for pattern in _patterns(exps):
        if not fnmatch.filter(ids, pattern) and "+" not in pattern:
            raise UserError(
                f"exps: {pattern!r} matches no experiment; allowed: {', '.join(experiment_ids())}"
            )
    return load_folders(paths)


def load_folders(paths: list[Path]) -> pd.DataFrame:
    """The rows of load_runs for these run folders."""
    return _frame([_row(path) for path in paths])


@functools.cache
def phase3() -> dict[str, Any]:
    """The log's numbers, params/recorded/phase3.yaml."""
    return read_yaml(PARAMS / "recorded" / "phase3.yaml")


def recorded(exps: list[str] | str | None = None) -> pd.DataFrame:
    """Read the log's results as rows of load_runs; losses are the logarithms of its perplexities, n = 1."""
    log, rows = phase3(), []
    for exp in [exp for exp in select(exps) if exp in log["experiments"]]:
        entry, experiment = log["experiments"][exp], load_config(exp)
        steps = experiment.train.max_steps
        tokens = steps * experiment.train.batch_size * experiment.model.max_seq_len
        loss = math.log(entry["best_val_perplexity"])
        machine = {
            "device_name": log["machine"]["device_name"],
            "precision": experiment.train.precision,
        }
        shown = f"{exp} (recorded)"
        rows.append(
            identity(experiment)
            | {
                key: entry[key]
                for key in ("wall_seconds", "mean_step_seconds", "started", "finished")
            }
            | {
                "source": RECORDED,
                "variant": shown,
                "run": shown,
                "seed": log["seed"],
                "state": "done",
                "reason": "",
            }
            | {"best_val_loss": loss, "final_val_loss": loss, "steps": steps, "tokens": tokens}
            | {
                "epochs": tokens / log["train_tokens"][experiment.data.corpus],
                "config": {"resolved": machine},
            }
            | {"parameters": log["parameters"][entry["model_type"]], "timing": entry}
        )
    return _frame(rows)


def load_metrics(runs: pd.DataFrame) -> pd.DataFrame:
    """Read the metric rows of all runs once, each with its run's identity; unreadable files are left out."""
    log = phase3()["experiments"] if (runs["source"] == RECORDED).any() else {}
    frames = []
    for row in runs[runs["experiment"].notna()].itertuples():
        if row.source == RECORDED:
            frame = pd.DataFrame(log[row.id]["evaluations"], columns=["step", "loss", "perplexity"])
            frame = frame.assign(
                event="eval", tokens=frame["step"] * (row.tokens / row.steps), seconds=math.nan
            )
        else:
            try:
                frame = records.read_metrics(row.path)
            except UserError:
                continue
        if len(frame):
            frames.append(frame.assign(**{key: getattr(row, key) for key in IDENTITY}))
    empty = pd.DataFrame(columns=["event", "step", "tokens", "loss", "seconds", *IDENTITY])
    return pd.concat(frames, ignore_index=True) if frames else empty


def select(exps: list[str] | str | None) -> list[str]:
    """Known experiment ids that match ids or globs; default all."""
    return [
        exp
        for exp in experiment_ids()
        if any(fnmatch.fnmatch(exp, pattern) for pattern in _patterns(exps))
    ]


def _patterns(exps: list[str] | str | None) -> list[str]:
    return exps.replace(",", " ").split() if isinstance(exps, str) else exps or ["*"]


def _row(path: Path) -> dict[str, Any]:
    """A run folder as a row, whatever is missing or broken in it."""
    reasons: list[str] = []

    def read(reader: Any) -> dict[str, Any]:
        try:
            return reader(path) or {}
        except UserError as error:
            reasons.append(str(error).replace(f"{path}/", "").removeprefix(f"{path}: "))
            return {}

    plain, status, summary = (
        read(records.read_config),
        read(records.read_status),
        read(records.read_summary),
    )
    folder = path.parent.name
    row = {"id": folder.split("_")[0], "source": MEASURED, "variant": folder, "path": path}
    row |= {
        "run": f"{folder}/{path.name}",
        "seed": int(path.name.removeprefix("seed")),
        "config": plain,
    }
    if plain:
        try:
            row |= identity(
                parse_experiment(plain["experiment"], "config.yaml", plain["overrides"])
            )
        except (UserError, KeyError, TypeError) as error:
            reasons.append(
                str(error)
                if isinstance(error, UserError)
                else f"config.yaml: {error} is missing or wrong"
            )
    row["state"] = "done" if summary else records.state(path) if not reasons else "unreadable"
    row |= {key: _number(summary.get(key)) for key in NUMBERS} | {
        "train_loss": _number(status.get("train_loss"))
    }
    if not summary:
        row |= {"steps": _number(status.get("step")), "eta_seconds": status.get("eta_seconds")}
    row |= {"started": plain.get("created"), "finished": summary.get("finished")}
    row |= {
        "parameters": plain.get("parameters"),
        "frozen": summary.get("frozen"),
        "timing": read(records.read_timing),
    }
    return row | {"reason": "; ".join(reasons) or _reason(row, status)}


def _reason(row: dict[str, Any], status: dict[str, Any]) -> str:
    """Why a readable run is not compared, or ""."""
    where = (
        f" at step {row['steps']:,.0f} of {row['max_steps']:,}"
        if row.get("max_steps") and row["steps"] >= 0
        else ""
    )
    if row["state"] == "done":
        return (
            ""
            if math.isfinite(row["final_val_loss"])
            else "final_val_loss is missing or not a number"
        )
    if row["state"] == "failed":
        return f"failed: {status.get('error')}"
    if row["state"] in ("dead", "stopped"):
        return f"{row['state']}{where}; the same command goes on"
    return "nothing in it yet" if row["state"] == "empty" else f"{row['state']}{where}"


def name(run: Any) -> str:
    """What a run's arm is called: its experiment's id, or the folder of a rehearsal, which is not the experiment."""
    return run.variant if "+" in run.variant else run.id


def identity(experiment: Experiment) -> dict[str, Any]:
    """The columns that an experiment alone decides."""
    row = {"id": experiment.id, "arm": arm_name(experiment.to_dict(), experiment.overrides)}
    row |= {"corpus": experiment.data.corpus, "tokenizer": experiment.data.tokenizer}
    return row | {"experiment": experiment, "max_steps": experiment.train.max_steps}


def _number(value: Any) -> float:
    good = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    return float(value) if good else math.nan


def _frame(rows: list[dict[str, Any]]) -> pd.DataFrame:
    frame = pd.DataFrame(rows, columns=COLUMNS)
    return frame.astype(dict.fromkeys([*NUMBERS, "train_loss"], "float64"))
