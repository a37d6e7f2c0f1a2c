"""Read the files of run folders, in whatever state they are.

The readers take a run folder, as a path or as a Run.
"""

from __future__ import annotations

import os
import socket
import stat
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from oelm_lib.config import Experiment, parse_experiment
from oelm_lib.errors import UserError
from oelm_lib.files import as_user_error, json_lines, read_json, remedy
from oelm_lib.runs.lock import is_locked, is_writer
from oelm_lib.runs.process import is_alive
from oelm_lib.runs.schema import (
    ACTIVE,
    FORMAT,
    LARGEST,
    ConfigRecord,
    MetricsRow,
    Record,
    StatusRecord,
    SummaryRecord,
)
from oelm_lib.yaml_text import parse_yaml

if TYPE_CHECKING:
    import pandas as pd

RunFolder = str | os.PathLike[str]
STALE_SECONDS = 120.0
"""Age of a heartbeat from another host at which its run is shown as dead."""
SCORED_AGAIN = "the same command then scores the last checkpoint again and trains no step"
RESCORE = f"delete it and summary.json: {SCORED_AGAIN}"


def recorded_experiment(plain: dict[str, Any], where: object) -> Experiment:
    """Return the experiment, with its overrides, that a config.yaml records.

    Args:
        plain: As read_config returns it.
        where: The file or folder that an error names.

    Raises:
        UserError: The record is not a valid experiment.
    """
    return parse_experiment(plain["experiment"], str(where), plain["overrides"])


def read_or_none(read: Callable[[Any], Any], path: RunFolder) -> Any:
    """Return what a reader of run folders returns, or None where the file cannot be read."""
    try:
        return read(path)
    except UserError:
        return None


def without_folder(error: UserError, folder: Path) -> str:
    """Return what an error says, without the run folder before its file names."""
    return str(error).replace(f"{folder}/", "").removeprefix(f"{folder}: ")


def read_config(run: RunFolder) -> dict[str, Any]:
    """Return config.yaml of a run.

    Raises:
        UserError: The file is missing, broken or of a newer format.
    """
    path = record_file(run, "config.yaml")
    try:
        plain = parse_yaml(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{Path(run)}: no config.yaml, {_without_config(run)}") from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}; {remedy(error)}") from None
    except ValueError:
        raise UserError(f"{path}: not readable as YAML; {_config_remedy(run)}") from None
    version = plain.get("format") if isinstance(plain, dict) else None
    if type(version) is not int or version < FORMAT:
        raise UserError(f"{path}: is damaged; {_config_remedy(run)}")
    if version > FORMAT:
        text = f"format {version}; this version reads {FORMAT}; update the workbook"
        raise UserError(f"{path}: {text}")
    _check(ConfigRecord, path, plain, _config_remedy(run))
    return plain


def read_status(run: RunFolder) -> dict[str, Any] | None:
    """Return status.json, or None where there is none yet. Raises UserError where it is broken."""
    path = record_file(run, "status.json")
    status = read_json(path)
    if status is None:
        return None
    _check(StatusRecord, path, status, "delete it: the run writes it again when it goes on")
    evals = [pair for pair in status.get("evals", []) if _is_pair(pair)]  # null: not finite
    eta = status.get("eta_seconds")
    return status | {"evals": evals, "eta_seconds": eta if _is_eta(eta) else None}


def known_status(run: RunFolder) -> dict[str, Any]:
    """Return what read_status does; {} where there is no status.json, or a broken one."""
    return read_or_none(read_status, run) or {}


def read_summary(run: RunFolder) -> dict[str, Any] | None:
    """Return summary.json, or None while the run is not done.

    A file of an older version has no `checksum`, so a change in it would not be noticed.

    Raises:
        UserError: The file is broken or fails its checksum.
    """
    path = record_file(run, "summary.json")
    summary = read_json(path)
    if summary is not None:
        _check(SummaryRecord, path, summary, f"delete it: {SCORED_AGAIN}")
    return summary


def is_test_scored(summary: dict[str, Any]) -> bool:
    """Return whether the test split was scored, also where the loss is not finite and so null."""
    return summary.get("test_scored") is True or summary.get("final_test_loss") is not None


def frozen_unchanged(intervals: Any) -> bool | None:
    """Return whether the frozen tensors kept their SHA-256; None where nothing was frozen.

    Args:
        intervals: `frozen` of summary.json; anything but a list counts as empty.
    """
    known = intervals if isinstance(intervals, list) else []
    equal = [
        interval["sha256_start"] == interval["sha256_end"]
        for interval in known
        if interval["tensors"]
    ]
    return all(equal) if equal else None


def read_timing(run: RunFolder) -> dict[str, Any] | None:
    """Return timing_stats.json, or None while the run is not done. Raises UserError if broken."""
    return read_json(record_file(run, "timing_stats.json"), RESCORE)


def read_metrics(run: RunFolder) -> pd.DataFrame:
    """Return metrics.jsonl as a frame, one row per event; a truncated last line is left out.

    Raises:
        UserError: A line is not a metrics row.
    """
    frame = _metrics_frame(run).drop(columns="logit_std")
    kinds = {"event": str, "step": int, "tokens": int}
    return frame.astype({name: kinds.get(name, float) for name in frame.columns})


def read_logit_std(run: RunFolder) -> pd.DataFrame:
    """Return the spread of attention scores at evaluations (step, layer, logit_std), from the rows.

    Raises UserError as `read_metrics`.
    """
    rows = _metrics_frame(run)[["step", "logit_std"]]
    points = rows.dropna().explode("logit_std", ignore_index=True)
    points.insert(1, "layer", points.groupby("step").cumcount())
    return points.astype({"step": int, "logit_std": float})


def _metrics_frame(run: RunFolder) -> pd.DataFrame:
    """Return the rows of metrics.jsonl with all keys. Raises UserError."""
    import pandas as pd

    path = record_file(run, "metrics.jsonl")
    with as_user_error(path, "cannot be read"):
        data = path.read_bytes() if path.exists() else b""
    rows = []
    for number, line in enumerate(json_lines(data), 1):
        try:
            rows.append(vars(MetricsRow.model_validate_json(line)))
        except ValidationError:
            raise UserError(
                f"{path}: line {number} is not a metrics row; delete that line"
            ) from None
    return pd.DataFrame(rows, columns=list(MetricsRow.model_fields))


def state(run: RunFolder) -> str:
    """Return the state of a run as true_state does; `unreadable` where status.json is broken."""
    try:
        return true_state(Path(run), read_status(run) or {})
    except UserError:
        return "unreadable"


def true_state(path: Path, status: dict[str, Any]) -> str:
    """Return the state in status.json, corrected if the process that wrote it has ended.

    A run in an ACTIVE state is `dead` if its trainer no longer holds the lock; a lock that another
    process holds does not count. If this host cannot check the lock, the heartbeat decides, by this
    host's clock; nobody takes a lock over for that reason. A queued run is `stopped` if its queue
    has ended: known by the process on this host, by the heartbeat on another. Runs queued by Slurm
    stay `queued`. Without a recorded state the result is `empty`.
    """
    recorded = status.get("state") or "empty"
    if recorded in ACTIVE:
        locked = is_locked(path) and is_writer(path, status)
        alive = _is_fresh(status) if locked is None else locked
        return recorded if alive else "dead"
    if recorded == "queued" and not status.get("job"):
        is_here = status.get("host") == socket.gethostname()
        return recorded if (is_alive(status) if is_here else _is_fresh(status)) else "stopped"
    return recorded


def record_file(run: RunFolder, name: str) -> Path:
    """Return the path of a run's own file, which need not exist.

    Raises:
        UserError: It is a link, a pipe or a folder: what is read or written would lie elsewhere.
    """
    path = Path(run) / name
    try:
        mode = path.lstat().st_mode
    except OSError:
        return path
    if not stat.S_ISREG(mode):
        names = {stat.S_IFLNK: "link", stat.S_IFDIR: "folder", stat.S_IFIFO: "pipe"}
        kind = names.get(stat.S_IFMT(mode), "device")
        raise UserError(
            f"{path}: is a {kind}, and the record of a run is plain files of its folder; put the"
            " file itself there, or remove it"
        )
    return path


def _without_config(run: RunFolder) -> str:
    """Return what a run folder without config.yaml is, and what a user can do."""
    if _is_finished(run):
        return (
            "so the finished run is compared with none; restore it, or delete summary.json:"
            f" {SCORED_AGAIN}"
        )
    return "so not a run that started; start the run (the same command), or delete the folder"


def _config_remedy(run: RunFolder) -> str:
    """Return what a user can do about a damaged config.yaml, which only training writes."""
    if _is_finished(run):
        return f"restore it, or {RESCORE}"
    return "restore it, or delete it: the same command then writes it again"


def _is_finished(run: RunFolder) -> bool:
    """Return whether a run has a result, readable or not."""
    return (Path(run) / "summary.json").exists()


def _check(kind: type[Record], path: Path, plain: dict[str, Any], hint: str) -> None:
    """Raise UserError where a key is missing or its value of another type."""
    try:
        kind.model_validate(plain)
    except ValidationError as error:
        key = error.errors()[0]["loc"][0]
        raise UserError(f"{path}: {key} is missing or broken; {hint}") from None


def _is_pair(value: Any) -> bool:
    """Return whether it is a list of two numbers of at most LARGEST."""
    if not isinstance(value, list) or len(value) != 2:
        return False
    return all(type(item) in (int, float) and abs(item) <= LARGEST for item in value)


def _is_eta(value: Any) -> bool:
    """Return whether it is a range of seconds whose end a clock can show."""
    return _is_pair(value) and 0 <= value[0] <= value[1] < 1e10


def _is_fresh(record: dict[str, Any]) -> bool:
    """Return whether a heartbeat is at most STALE_SECONDS from now; a wrong clock may be ahead."""
    return abs(time.time() - (record.get("heartbeat") or 0)) < STALE_SECONDS
