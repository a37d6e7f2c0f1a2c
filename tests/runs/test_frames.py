"""Run folders and the log as frames: why a run is not compared, and what the log printed."""

import math

import pytest

from oelm_lib.files import write_json
from oelm_lib.runs.frames import load_metrics, load_runs, recorded
from oelm_lib.runs.process import this_process
from tests.runs_factory import make_run


@pytest.mark.parametrize(
    ("state", "done", "reason"),
    [
        ("stopped", 0.0, "stopped at step 0 of 650; the same command continues it"),
        ("dead", 0.5, "dead at step 325 of 650; the same command continues it"),
        ("failed", 0.5, "failed: "),
        ("done", 1.0, ""),
    ],
)
def test_a_run_that_is_not_done_says_where_it_stands(tmp_path, state, done, reason):
    make_run(tmp_path, "DEMO-02", state=state, done=done, documents=0)
    (row,) = load_runs("DEMO-02", tmp_path).itertuples()
    assert row.state == state
    assert row.reason.startswith(reason) and bool(row.reason) == bool(reason)


def test_evaluations_of_the_log_are_rows_like_those_of_a_run():
    runs = recorded("GPT-01")
    (run,) = runs.itertuples()
    rows = load_metrics(runs)
    assert set(rows["event"]) == {"eval"}
    assert rows["tokens"].iloc[-1] == rows["step"].iloc[-1] * 8 * 512
    assert rows["loss"].map(math.exp).tolist() == pytest.approx(list(rows["perplexity"]), rel=0.01)
    assert run.final_val_loss == run.best_val_loss == math.log(run.timing["best_val_perplexity"])


def test_a_run_that_waits_in_a_queue_is_not_called_broken(tmp_path):
    path = tmp_path / "DEMO-02_oelm_freeze" / "seed42"
    path.mkdir(parents=True)
    status = {"state": "queued", "step": 0, "max_steps": 650, "heartbeat": 4e9, "started": None}
    write_json(path / "status.json", status | this_process())
    (row,) = load_runs("DEMO-02", tmp_path).itertuples()
    assert (row.state, row.reason) == ("queued", "queued")
    write_json(path / "status.json", status | this_process() | {"process_start": 0.0})
    (row,) = load_runs("DEMO-02", tmp_path).itertuples()
    assert (row.state, row.reason) == ("stopped", "stopped; the same command continues it")


def test_none_means_all_runs_and_an_empty_list_none(tmp_path):
    make_run(tmp_path, "DEMO-02", 1)
    assert len(load_runs(None, tmp_path)) == 1
    assert load_runs([], tmp_path).empty
    assert load_runs("", tmp_path).empty
    assert recorded([]).empty
