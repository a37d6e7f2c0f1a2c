"""A run is written by the process that holds its lock, and by no other."""

import json
import shutil

import pytest

from oelm_lib import runs
from oelm_lib.errors import UserError
from oelm_lib.runs.lock import LockLost
from oelm_lib.training import score_test_split
from oelm_lib.training.state import TrainingState
from tests.clocked import without_clock
from tests.training.helpers import rows_of, stop_at, train


def files_of(run):
    """Content of every file of the run folder but the lock."""
    files = (path for path in run.path.iterdir() if path.name != "lock.json")
    return {path.name: path.read_bytes() for path in files}


def take_over(run):
    """Put the lock of another process in place of this one's."""
    lock = run.path / "lock.json"
    record = json.loads(lock.read_text())
    lock.unlink()  # a file of its own: this process' beat goes on in the old one
    lock.write_text(json.dumps(record | {"token": "other", "pid": 1}))


def test_train_called_again_while_another_process_writes_touches_nothing(tiny_run, monkeypatch):
    stop_at(monkeypatch, 6)
    run = tiny_run()
    train(run)
    run.lock.acquire()
    take_over(run)
    before = files_of(run)
    with pytest.raises(UserError, match="taken it over"):
        train(run)
    assert files_of(run) == before


@pytest.mark.parametrize("step", [3, 5, 6, 10, 24])
def test_a_lost_lock_stops_the_run_with_one_line_and_nothing_is_written(
    tiny_run, monkeypatch, step
):
    """At a plain step, a save, an evaluation, a log point and the end."""
    run, files, update = tiny_run(), [], TrainingState.update

    def lose(state):
        rate = update(state)
        if state.step == step:
            take_over(run)
            files.append(files_of(run))
        return rate

    with monkeypatch.context() as patch:
        patch.setattr(TrainingState, "update", lose)
        with pytest.raises(LockLost, match=r"process 1 on .* writes nothing more") as raised:
            train(run)
    assert "\n" not in str(raised.value)
    assert files_of(run) == files[0]
    assert json.loads((run.path / "lock.json").read_text())["token"] == "other"


@pytest.mark.parametrize("step", [3, 5, 6, 10])
@pytest.mark.parametrize("how", ["moved", "deleted"])
def test_a_folder_removed_while_it_trains_is_one_line(tiny_run, tmp_path, monkeypatch, step, how):
    """At a plain step, a save, an evaluation and a log point."""
    run, update = tiny_run(), TrainingState.update

    def remove(state):
        rate = update(state)
        if state.step == step:
            if how == "moved":
                run.path.rename(tmp_path / "moved")
            else:
                shutil.rmtree(run.path)
        return rate

    monkeypatch.setattr(TrainingState, "update", remove)
    with pytest.raises(UserError) as raised:
        train(run)
    assert str(run.path) in str(raised.value) and "\n" not in str(raised.value)
    if how == "moved":
        assert runs.state(tmp_path / "moved") in ("dead", "stopped", "failed")
    assert not run.path.exists()


def test_a_stop_file_of_the_next_writer_is_left(tiny_run, monkeypatch):
    run, update = tiny_run(), TrainingState.update

    def lose(state):
        (run.path / "STOP").touch()
        take_over(run)
        return update(state)

    monkeypatch.setattr(TrainingState, "update", lose)
    with pytest.raises(LockLost):
        train(run)
    assert (run.path / "STOP").exists()


def test_a_lost_lock_and_the_next_writer_give_an_undisturbed_run(tiny_run, monkeypatch):
    undisturbed = tiny_run(folder="a")
    train(undisturbed)
    run, update = tiny_run(folder="b"), TrainingState.update

    def lose(state):
        if state.step == 8:
            take_over(run)
        return update(state)

    with monkeypatch.context() as patch:
        patch.setattr(TrainingState, "update", lose)
        with pytest.raises(LockLost):
            train(run)
    (run.path / "lock.json").unlink()  # the next writer has ended too
    train(tiny_run(folder="b"))
    assert without_clock(rows_of(run)) == without_clock(rows_of(undisturbed))


def test_scoring_the_test_split_holds_the_lock(tiny_run):
    run = tiny_run()
    train(run)
    run.lock.acquire()
    take_over(run)
    before = files_of(run)
    with pytest.raises(UserError):
        score_test_split(run)
    assert files_of(run) == before
    assert runs.read_summary(run)["final_test_loss"] is None
