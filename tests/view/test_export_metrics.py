import importlib.util

import pandas as pd
import pytest

from oelm_lib.errors import UserError
from oelm_lib.runs.reading import read_metrics
from oelm_lib.view.export_metrics import export_metrics, scalars


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


def test_a_run_without_rows_is_refused(tmp_path):
    with pytest.raises(UserError, match="no metrics yet"):
        export_metrics(tmp_path, "csv")
