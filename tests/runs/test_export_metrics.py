import importlib.util
import json
import struct

import pandas as pd
import pytest
from click.testing import CliRunner

from oelm_lib.cli import main
from oelm_lib.errors import UserError
from oelm_lib.runs.export_metrics import export_metrics, scalars
from oelm_lib.runs.reading import read_metrics


@pytest.fixture
def run(demo):
    return demo / "DEMO-02_oelm_freeze" / "seed42"


def test_csv_holds_every_row(run, tmp_path):
    target = export_metrics(run, "csv")
    assert target == run / "metrics.csv"
    written, rows = pd.read_csv(target), read_metrics(run)
    assert list(written.columns) == list(rows.columns)
    assert written["loss"].tolist() == pytest.approx(rows["loss"].tolist())
    assert export_metrics(run, "csv", tmp_path / "x.csv").is_file()


@pytest.mark.parametrize(("folder", "file"), [("/", "/metrics.csv"), (".", "metrics.csv")])
def test_a_folder_in_place_of_the_csv_file_is_one_line(run, folder, file):
    done = CliRunner().invoke(main, ["export", str(run), "--format", "csv", "--output", folder])
    assert done.exit_code == 2
    (line,) = done.output.splitlines()
    assert line.endswith(f"is a folder; name the file, as --output {file}")


def test_scalars_are_named_by_event_and_leave_out_what_a_row_has_not(run):
    rows = list(scalars(read_metrics(run)))
    assert len(rows) == len(read_metrics(run))
    evaluation = next(values for _, _, values in rows if "eval/loss" in values)
    training = next(values for _, _, values in rows if "train/loss" in values)
    assert "eval/grad_norm" not in evaluation
    assert training["train/tokens"] > 0
    assert all(value == value for _, _, values in rows for value in values.values())


@pytest.mark.parametrize(
    ("form", "package"), [("tensorboard", "tensorboard"), ("wandb-offline", "wandb")]
)
def test_a_missing_package_is_named_with_its_command(run, form, package):
    if importlib.util.find_spec(package):
        pytest.skip(f"{package} is installed")
    with pytest.raises(UserError, match=rf"needs the package {package}; pip install"):
        export_metrics(run, form)


def test_tensorboard_reads_back_the_losses(run, tmp_path):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    for _ in range(2):  # a second export replaces the first
        export_metrics(run, "tensorboard", tmp_path / "tb")
    reader = EventAccumulator(str(tmp_path / "tb"))
    reader.Reload()
    rows = read_metrics(run).query("event == 'eval'")
    events = reader.Scalars("eval/loss")
    assert [event.step for event in events] == rows["step"].tolist()
    assert [event.value for event in events] == pytest.approx(rows["loss"].tolist(), rel=1e-6)


def test_an_export_for_tensorboard_leaves_the_files_of_other_runs(demo, tmp_path):
    pytest.importorskip("tensorboard")
    folder = tmp_path / "tb"
    folder.mkdir()
    (folder / "events.out.tfevents.1700000000.host.1.0").write_bytes(b"")  # of another program
    for run in ("DEMO-01_baseline/seed42", "DEMO-02_oelm_freeze/seed42"):
        export_metrics(demo / run, "tensorboard", folder)
    assert len(list(folder.iterdir())) == 3


def test_weights_and_biases_reads_back_the_losses(run, tmp_path):
    pytest.importorskip("wandb")
    own = tmp_path / "wb" / "wandb" / "offline-run-20260102_030405-abcdefgh" / "run-abcdefgh.wandb"
    own.parent.mkdir(parents=True)  # of a project of the user's
    own.write_bytes(b"other runs")
    for _ in range(2):  # a second export replaces the first
        export_metrics(run, "wandb-offline", tmp_path / "wb")
    assert own.read_bytes() == b"other runs"
    files = (tmp_path / "wb").rglob("offline-run-*/*.wandb")
    (file,) = (path for path in files if path != own)
    records = wandb_records(file)
    (header,) = [record.run for record in records if record.WhichOneof("record_type") == "run"]
    assert header.display_name == "DEMO-02_oelm_freeze/seed42"
    rows = [
        {item.key or item.nested_key[0]: json.loads(item.value_json) for item in entry.history.item}
        for entry in records
        if entry.WhichOneof("record_type") == "history"
    ]
    written = {row["_step"]: row["eval/loss"] for row in rows if "eval/loss" in row}
    evals = read_metrics(run).query("event == 'eval'")
    assert written == pytest.approx(dict(zip(evals["step"], evals["loss"], strict=True)))


def wandb_records(file):
    """The records of an offline run: chunks as in LevelDB's log, in blocks of 32 KiB."""
    from wandb.proto.wandb_internal_pb2 import Record

    data, offset, records, parts = file.read_bytes(), 7, [], b""
    while offset + 7 <= len(data):
        if (left := 32768 - offset % 32768) < 7:
            offset += left
            continue
        length, kind = struct.unpack("<HB", data[offset + 4 : offset + 7])
        parts += data[offset + 7 : offset + 7 + length]
        offset += 7 + length
        if kind in (1, 4):  # a whole record, or its last chunk
            records.append(Record.FromString(parts))
            parts = b""
    return records


def test_a_run_without_rows_is_refused(tmp_path):
    with pytest.raises(UserError, match="no metrics yet"):
        export_metrics(tmp_path, "csv")
