import json
import multiprocessing

import pytest

from oelm_lib.errors import UserError
from oelm_lib.runs.lock import RunLock
from oelm_lib.runs.process import this_process
from oelm_lib.runs.reading import find_runs
from oelm_lib.runs.trash import remove_runs, restore_last, restore_run


@pytest.fixture
def run(tmp_path):
    path = tmp_path / "DEMO-01_baseline" / "seed1"
    path.mkdir(parents=True)
    (path / "metrics.jsonl").write_text("rows")
    return path


def test_a_removed_run_is_gone_from_the_lists_and_comes_back_whole(run, tmp_path):
    remove_runs([run])
    assert find_runs(tmp_path) == []
    assert not run.parent.exists()
    assert restore_run("DEMO-01", tmp_path) == run
    assert [file.name for file in run.iterdir()] == ["metrics.jsonl"]
    assert find_runs(tmp_path) == [run]
    assert list((tmp_path / ".trash").iterdir()) == []


def test_the_run_removed_last_comes_back_first_and_never_over_another(run, tmp_path):
    remove_runs([run])
    run.mkdir(parents=True)
    (run / "metrics.jsonl").write_text("newer")
    remove_runs([run])
    assert restore_run("DEMO-01_baseline/seed1", tmp_path) == run
    assert (run / "metrics.jsonl").read_text() == "newer"
    with pytest.raises(UserError, match="exists again"):
        restore_run("DEMO-01/seed1", tmp_path)
    with pytest.raises(UserError, match="no removed run is called 'DEMO-02'"):
        restore_run("DEMO-02", tmp_path)


def test_a_run_that_trains_is_refused(run):
    status = {"state": "running", "heartbeat": 4e9, "step": 1, "max_steps": 2} | this_process()
    lock = RunLock(run)
    lock.acquire()
    (run / "status.json").write_text(json.dumps(status))
    with pytest.raises(UserError, match="the run is running; stop it first: oelm stop"):
        remove_runs([run])
    lock.release()


def _hold(path, ready, done):
    lock = RunLock(path)
    lock.acquire()
    ready.set()
    done.wait()


def test_a_run_that_another_process_has_open_is_refused(run):
    context = multiprocessing.get_context("spawn")
    ready, done = context.Event(), context.Event()
    process = context.Process(target=_hold, args=(run, ready, done))
    process.start()
    try:
        assert ready.wait(60)
        with pytest.raises(UserError, match="in use by process"):
            remove_runs([run])
    finally:
        done.set()
        process.join()
    assert run.is_dir()


def second_run(run):
    other = run.with_name("seed2")
    other.mkdir()
    (other / "metrics.jsonl").write_text("rows")
    return other


def test_several_runs_are_one_removal_and_come_back_together(run, tmp_path):
    other = second_run(run)
    third = run.with_name("seed3")
    third.mkdir()
    remove_runs([third])
    remove_runs([run, other])
    assert restore_last(tmp_path) == [run, other] and not third.exists()
    assert restore_last(tmp_path) == [third]
    with pytest.raises(UserError, match="trash is empty"):
        restore_last(tmp_path)


def test_none_is_removed_where_one_trains_and_none_comes_back_over_another(run, tmp_path):
    other = second_run(run)
    status = {"state": "running", "heartbeat": 4e9, "step": 1, "max_steps": 2} | this_process()
    lock = RunLock(other)
    lock.acquire()
    (other / "status.json").write_text(json.dumps(status))
    with pytest.raises(UserError, match="stop it first"):
        remove_runs([run, other])
    assert run.is_dir()
    lock.release()
    remove_runs([run, other])
    other.mkdir(parents=True)
    with pytest.raises(UserError, match="exists again"):
        restore_last(tmp_path)
    assert not run.exists()
