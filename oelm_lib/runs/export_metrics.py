"""Metrics of a run for other tools: CSV, TensorBoard, and Weights & Biases offline."""

import hashlib
import shutil
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

import pandas as pd

from oelm_lib.errors import UserError
from oelm_lib.files import replacing
from oelm_lib.runs.names import run_name
from oelm_lib.runs.reading import read_config, read_metrics

VALUES = ("loss", "perplexity", "learning_rate", "grad_norm", "tokens_per_s", "tokens")
PROJECT = "oelm-workbook"


def export_metrics(run: Path, form: str, output: Path | None = None) -> Path:
    """Write the metrics of a run in another tool's format.

    An earlier export of the same run is replaced; other files in a folder stay.

    Args:
        run: Run folder.
        form: `csv`, `tensorboard` or `wandb-offline`.
        output: File (csv) or folder to make; default: in the run folder.

    Returns:
        What was written.

    Raises:
        UserError: The run has no metrics yet, the csv's name is that of a folder, or the tool's
            package is missing.
    """
    metrics = read_metrics(run)
    if metrics.empty:
        raise UserError(f"{run}: no metrics yet; see oelm status")
    if form == "csv":
        target = output or run / "metrics.csv"
        if target.is_dir():
            raise UserError(
                f"{target}: is a folder; name the file, as --output {target / 'metrics.csv'}"
            )
        with replacing(target) as temporary:
            metrics.to_csv(temporary, index=False)
        return target
    target = output or run / form
    target.mkdir(parents=True, exist_ok=True)
    write = {"tensorboard": _write_tensorboard, "wandb-offline": _write_wandb}[form]
    write(run, metrics, target)
    return target


def scalars(metrics: pd.DataFrame) -> Iterator[tuple[int, float, dict[str, float]]]:
    """Yield step, seconds since the start, and `train/loss` and the like, for each row.

    Args:
        metrics: Frame of read_metrics.
    """
    for row in metrics.itertuples():
        values = {f"{row.event}/{name}": getattr(row, name) for name in VALUES}
        known = {name: float(value) for name, value in values.items() if pd.notna(value)}
        yield int(row.step), float(row.seconds), known


def _write_tensorboard(run: Path, metrics: pd.DataFrame, target: Path) -> None:
    try:
        from tensorboard.compat.proto.event_pb2 import Event
        from tensorboard.compat.proto.summary_pb2 import Summary
        from tensorboard.summary.writer.event_file_writer import EventFileWriter
    except ImportError:
        raise _missing("tensorboard", "tensorboard") from None
    start = datetime.fromisoformat(read_config(run)["created"]).timestamp()
    suffix = f".{_export_id(run)}"
    for old in target.glob(f"events.out.tfevents.*{suffix}"):
        old.unlink()  # which would be drawn twice
    writer = EventFileWriter(str(target), filename_suffix=suffix)
    for step, seconds, values in scalars(metrics):
        entries = [Summary.Value(tag=name, simple_value=value) for name, value in values.items()]
        summary = Summary(value=entries)
        writer.add_event(Event(wall_time=start + seconds, step=step, summary=summary))
    writer.close()


def _write_wandb(run: Path, metrics: pd.DataFrame, target: Path) -> None:
    try:
        import wandb
    except ImportError:
        raise _missing("wandb-offline", "wandb") from None
    record, export_id = read_config(run), _export_id(run)
    for old in (target / "wandb").glob(f"offline-run-*-{export_id}"):
        shutil.rmtree(old)
    session = wandb.init(
        mode="offline",
        dir=str(target),
        project=PROJECT,
        name=run_name(run),
        # An export that is synchronized again updates the same run of the dashboard.
        id=export_id,
        group=record["experiment"]["id"],
        config=record["experiment"] | {"seed": record["seed"]},
        # What Weights & Biases adds would be about this command, not about the run.
        settings=wandb.Settings(silent=True, console="off", save_code=False, x_disable_stats=True),
    )
    for step, seconds, values in scalars(metrics):
        session.log(values | {"seconds": seconds}, step=step)
    session.finish()
    wandb.teardown()  # waits until the file is whole


def _export_id(run: Path) -> str:
    """Return 12 hex digits that no other run has, the same for each export of a run."""
    text = f"{run_name(run)} {read_config(run)['created']}"
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def _missing(form: str, package: str) -> UserError:
    return UserError(
        f"--format {form} needs the package {package}; pip install -e '.[{package}]',"
        " or use --format csv"
    )
