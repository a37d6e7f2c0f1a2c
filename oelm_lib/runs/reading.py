"""Read run folders, whatever state they are in; no torch."""

import fnmatch
import json
import socket
import time
from pathlib import Path
from typing import Any

import yaml

from oelm_lib import config
from oelm_lib.errors import UserError
from oelm_lib.runs.lock import ACTIVE, is_locked
from oelm_lib.runs.process import is_alive

FORMAT = 1
STALE_SECONDS = 120.0
"""Age of a heartbeat from another host at which its run is shown as dead."""
CONFIG_KEYS = {"kind": str, "label": str, "seed": int} | dict.fromkeys(
    ("experiment", "overrides", "code", "versions", "resolved", "corpus", "parameters"), dict
)
"""What config.yaml holds beside its format."""
METRIC_COLUMNS = {"event": "string", "step": "int64", "tokens": "int64"} | dict.fromkeys(
    "loss perplexity learning_rate grad_norm tokens_per_s eval_tokens eval_seconds seconds".split(),
    "float64",
)
CHECKPOINTS = ("latest", "best", "latest.prev")
"""Last weights, by which arms are compared; those with the least loss on the subset; those saved before the last."""


def find_runs(
    outputs: Path | str | None = None,
    exps: list[str] | str | None = None,
    rehearsals: bool = True,
) -> list[Path]:
    """Run folders `<outputs>/<ID>_<slug>[+hash]/seed<k>`, sorted.

    Args:
        outputs: Default: config.outputs_dir().
        exps: Experiment ids or globs (list, or text parted by spaces or commas); default all. One
            with a `+` is compared with the folder's name, e.g. `*+*` for all rehearsals.
        rehearsals: Whether a name without `+` means an experiment's rehearsals too.
    """
    root = Path(outputs) if outputs else config.outputs_dir()
    patterns = exps.replace(",", " ").split() if isinstance(exps, str) else exps or ["*"]
    found = (
        path
        for path in root.glob("*/seed*")
        if path.is_dir() and path.name.removeprefix("seed").isdigit()
    )
    named = [
        path for path in found if any(_is_named(path.parent.name, p, rehearsals) for p in patterns)
    ]
    return sorted(named, key=lambda path: (path.parent.name, int(path.name.removeprefix("seed"))))


def _is_named(folder: str, pattern: str, rehearsals: bool) -> bool:
    """Return whether the folder of an experiment's runs is meant by an id or glob."""
    if "+" in pattern:
        return fnmatch.fnmatchcase(folder, pattern)
    experiment = folder.split("_")[0]
    return (rehearsals or "+" not in folder) and fnmatch.fnmatchcase(experiment, pattern)


def read_config(run: Any) -> dict[str, Any]:
    """config.yaml of a run (a Run or a folder). Raises UserError where missing, broken or newer."""
    path = folder(run) / "config.yaml"
    if not path.is_file():
        raise UserError(
            f"{folder(run)}: no config.yaml, so not a run that started; delete the folder or start the run"
        )
    try:
        plain = yaml.load(
            path.read_text(encoding="utf-8"), Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader)
        )
    except (yaml.YAMLError, ValueError, OSError):
        raise UserError(
            f"{path}: not readable as YAML; restore it or start the run afresh (--fresh)"
        ) from None
    found = plain.get("format") if isinstance(plain, dict) else None
    if found != FORMAT:
        raise UserError(
            f"{path}: format {found!r}; this version reads {FORMAT}; update the workbook"
        )
    wrong = [key for key, kind in CONFIG_KEYS.items() if not isinstance(plain.get(key), kind)]
    if wrong:
        raise UserError(
            f"{path}: {wrong[0]} is missing or broken; restore the file or start afresh (--fresh)"
        )
    return plain


def read_status(run: Any) -> dict[str, Any] | None:
    """status.json, or None where there is none yet."""
    return _read_json(folder(run) / "status.json")


def read_summary(run: Any) -> dict[str, Any] | None:
    """summary.json, or None while the run is not done."""
    return _read_json(folder(run) / "summary.json")


def read_timing(run: Any) -> dict[str, Any] | None:
    """timing_stats.json, or None while the run is not done."""
    return _read_json(folder(run) / "timing_stats.json")


def read_metrics(run: Any):
    """metrics.jsonl as a DataFrame, one row an event; a torn last line is dropped.

    Raises:
        UserError: A line before the last is not a metrics row.
    """
    import pyarrow as pa
    from pyarrow import json as arrow_json

    path = folder(run) / "metrics.jsonl"
    data = path.read_bytes() if path.is_file() else b""
    data = data[: data.rfind(b"\n") + 1]
    schema = pa.schema(list(METRIC_COLUMNS.items()))
    options = arrow_json.ParseOptions(explicit_schema=schema, unexpected_field_behavior="ignore")

    def rows(part: bytes):
        if not part:
            return schema.empty_table()
        table = arrow_json.read_json(
            pa.BufferReader(part), arrow_json.ReadOptions(block_size=len(part)), options
        )
        if table["step"].null_count:
            raise pa.ArrowInvalid("a row without its step")
        return table

    try:
        return rows(data).to_pandas()
    except pa.ArrowInvalid:
        for number, line in enumerate(data.splitlines(keepends=True), 1):
            try:
                rows(line)
            except pa.ArrowInvalid:
                raise UserError(
                    f"{path}: line {number} is not a metrics row; delete that line"
                ) from None
        raise


def state(run: Any) -> str:
    """State of a run: that of status.json, `dead` where its writer is gone, `empty`, `unreadable`."""
    try:
        return true_state(folder(run), read_status(run) or {"state": "empty"})
    except UserError:
        return "unreadable"


def true_state(path: Path, status: dict[str, Any]) -> str:
    """The state that status.json tells, or `dead` where its writer is gone.

    The folder's lock decides. Where it cannot (a writer on another host), the heartbeat does, by
    this host's clock: good enough to show, and never used to take a lock over.
    """
    if status.get("state") not in ACTIVE:
        return str(status.get("state"))
    locked = is_locked(path)
    alive = _is_fresh(status) if locked is None else locked
    return str(status["state"]) if alive else "dead"


def queue_alive(status: dict[str, Any]) -> bool:
    """Whether the queue that wrote a `queued` status still runs: by its process, elsewhere by age."""
    if status.get("host") == socket.gethostname():
        return is_alive(status)
    return _is_fresh(status)


def folder(run: Any) -> Path:
    """The folder of a Run, or a path as it is."""
    return Path(getattr(run, "path", run))


def _read_json(path: Path) -> dict[str, Any] | None:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}; check its rights") from None
    except ValueError:
        raise UserError(
            f"{path}: not readable as JSON; delete it, the run rewrites it when it goes on"
        ) from None
    if not isinstance(value, dict):
        raise UserError(f"{path}: holds {type(value).__name__}, not an object; delete it")
    return value


def _is_fresh(record: dict[str, Any]) -> bool:
    heartbeat = record.get("heartbeat")
    return isinstance(heartbeat, int | float) and time.time() - heartbeat < STALE_SECONDS
