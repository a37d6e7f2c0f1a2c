import json
import multiprocessing
import os
import re
import shlex
import subprocess
import tempfile
from pathlib import Path

import pytest
from click.testing import CliRunner

from oelm_lib import config
from oelm_lib.cli import main
from oelm_lib.errors import UserError
from oelm_lib.runs.find import find_run, find_runs
from oelm_lib.runs.lock import RunLock
from oelm_lib.runs.process import this_process
from oelm_lib.runs.stop import ask_to_stop
from oelm_lib.runs.trash import (
    remove_experiment,
    remove_runs,
    removed_runs,
    restore_last,
    restore_runs,
)
from tests.project_params import copy_params

NOBODY = 65534


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
    assert restore_runs(["DEMO-01"], tmp_path) == [run]
    assert [file.name for file in run.iterdir()] == ["metrics.jsonl"]
    assert find_runs(tmp_path) == [run]
    assert list((tmp_path / ".trash").iterdir()) == []


@pytest.mark.parametrize(
    "name",
    [
        "demo-01",
        "demo-01/seed1",
        "DEMO-01/seed1",
        "params/DEMO-01.yaml",
        "DEMO-01_baseline",
        "DEMO-01_baseline/seed1",
        "{path}",
    ],
)
def test_a_run_is_removed_and_restored_by_the_same_names(run, tmp_path, name):
    name = name.format(path=run)
    remove_runs([find_run(name, tmp_path)])
    assert restore_runs([name], tmp_path) == [run]


def test_a_run_that_cannot_be_moved_stays_and_the_error_names_a_remedy(run, tmp_path):
    (tmp_path / ".trash").write_text("")
    with pytest.raises(UserError, match=r"cannot be moved to .*: choose another folder"):
        remove_runs([run])
    assert [file.name for file in run.iterdir()] == ["metrics.jsonl"]


def test_a_run_of_another_outputs_folder_comes_back_by_its_path(run, tmp_path, monkeypatch):
    monkeypatch.setenv("OELM_OUTPUTS", str(tmp_path / "elsewhere"))
    done = CliRunner().invoke(main, ["rm", str(run)], catch_exceptions=False)
    command = re.search("oelm (rm --undo .+) brings it back", done.output)[1]
    assert not run.exists()
    CliRunner().invoke(main, shlex.split(command), catch_exceptions=False)
    assert run.is_dir()


def test_the_run_removed_last_comes_back_first_and_never_over_another(run, tmp_path):
    remove_runs([run])
    run.mkdir(parents=True)
    (run / "metrics.jsonl").write_text("newer")
    remove_runs([run])
    assert restore_runs(["DEMO-01_baseline/seed1"], tmp_path) == [run]
    assert (run / "metrics.jsonl").read_text() == "newer"
    with pytest.raises(UserError, match="exists again"):
        restore_runs(["DEMO-01/seed1"], tmp_path)
    with pytest.raises(UserError, match="no removed run is called 'DEMO-02'"):
        restore_runs(["DEMO-02"], tmp_path)


def test_an_experiment_comes_back_before_rehearsals_that_were_removed_later(run, tmp_path):
    rehearsal = tmp_path / "DEMO-01_baseline+0123abcd" / "seed1"
    rehearsal.mkdir(parents=True)
    remove_runs([run])
    remove_runs([rehearsal])
    assert restore_runs(["DEMO-01/seed1"], tmp_path) == [run]
    assert restore_runs(["DEMO-01/seed1"], tmp_path) == [rehearsal]


def test_a_run_that_trains_is_refused(run):
    status = {"state": "running", "heartbeat": 4e9, "step": 1, "max_steps": 2} | this_process()
    lock = RunLock(run)
    lock.acquire()
    (run / "status.json").write_text(json.dumps(status))
    with pytest.raises(UserError, match="the run is running; stop it first: oelm stop"):
        remove_runs([run])
    lock.release()


def test_a_run_that_waits_in_a_queue_is_refused_until_its_queue_has_ended(run):
    status = {"state": "queued", "heartbeat": 0, "step": 0, "max_steps": 2, "job": None}
    (run / "status.json").write_text(json.dumps(status | this_process()))
    for action in (lambda: remove_runs([run]), lambda: ask_to_stop(run)):
        with pytest.raises(UserError, match=rf"stop that queue .*kill {os.getpid()}\), whose"):
            action()
    (run / "status.json").write_text(json.dumps(status | this_process() | {"process_start": 1}))
    with pytest.raises(UserError, match="stopped, so there is nothing to stop"):
        ask_to_stop(run)
    assert remove_runs([run])


def test_a_run_that_was_submitted_to_slurm_is_removed(run):
    status = {"state": "queued", "heartbeat": 0, "step": 0, "max_steps": 2, "job": "17_1"}
    (run / "status.json").write_text(json.dumps(status | this_process()))
    assert remove_runs([run])


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


def test_where_one_cannot_be_moved_none_is_removed_or_restored(run, tmp_path):
    """The runs before it lay in the trash, or were back."""
    other = tmp_path / "studies" / "example" / run.parent.name / "seed2"
    other.mkdir(parents=True)
    trash = other.parents[1] / ".trash"
    trash.write_text("")
    with pytest.raises(UserError, match="; nothing was moved"):
        remove_runs([run, other])
    assert [file.name for file in run.iterdir()] == ["metrics.jsonl"] and other.is_dir()
    trash.unlink()
    remove_runs([run, other])
    other.parent.write_text("")
    for last, words in (("DEMO-99", "no removed run is called"), (str(other), "nothing was moved")):
        with pytest.raises(UserError, match=words):
            restore_runs([str(run), last], tmp_path)
        assert not run.exists()
    other.parent.unlink()
    assert restore_runs([str(run), str(other), "DEMO-01"], tmp_path) == [run, other]


def test_a_run_in_a_folder_that_cannot_be_written_is_neither_copied_nor_emptied():
    """Its files lay in the trash, and its folder was left behind, empty."""
    user = os.geteuid()
    with tempfile.TemporaryDirectory() as folder:  # pytest's own folder lets only its owner in
        arm, run = Path(folder) / "DEMO-01_baseline", Path(folder) / "DEMO-01_baseline" / "seed1"
        run.mkdir(parents=True)
        (run / "metrics.jsonl").write_text("rows")
        for path in (Path(folder), run):
            path.chmod(0o777)
        arm.chmod(0o555)
        if user == 0:
            os.seteuid(NOBODY)  # no permission stops root
        try:
            with pytest.raises(UserError, match="Permission denied; fix the permissions; nothing"):
                remove_runs([run])
            assert [file.name for file in run.iterdir()] == ["metrics.jsonl"]
            assert removed_runs(Path(folder)) == []
        finally:
            os.seteuid(user)
            arm.chmod(0o755)


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


@pytest.fixture
def own(tmp_path, monkeypatch):
    """The file of one's own experiment DEMO-05, beside those that git tracks."""
    params = copy_params(tmp_path)
    monkeypatch.setattr(config.paths, "PARAMS", params)
    for command in (["init", "--quiet"], ["add", "params"]):
        subprocess.run(["git", "-C", tmp_path, *command], check=True)
    path = params / "DEMO-05.yaml"
    path.write_text(config.new_experiment("DEMO-02", "DEMO-05", "model.dropout=0.1"))
    return path


def test_ones_own_experiment_is_removed_and_comes_back_before_what_was_removed_earlier(
    own, run, tmp_path
):
    text = own.read_text()
    remove_runs([run])
    remove_experiment("DEMO-05", tmp_path)
    assert "DEMO-05" not in config.experiment_ids()
    assert restore_last(tmp_path) == [own] and own.read_text() == text
    assert restore_last(tmp_path) == [run]
    assert list((tmp_path / ".trash").iterdir()) == []


def test_an_experiment_of_the_project_or_one_that_is_in_use_is_not_removed(own, tmp_path):
    with pytest.raises(UserError, match=r"DEMO-02\.yaml: git tracks it"):
        remove_experiment("DEMO-02", tmp_path)
    runs = tmp_path / "DEMO-05_x+0123abcd" / "seed1"
    runs.mkdir(parents=True)
    with pytest.raises(UserError, match=r"has runs in .* \(1\); remove these first"):
        remove_experiment("DEMO-05", tmp_path)
    remove_runs([runs])
    arm = own.with_name("DEMO-06.yaml")
    arm.write_text(
        config.new_experiment("DEMO-05", "DEMO-06", "model.qk_norm=true", compare_to="DEMO-05")
    )
    study = own.parent / "studies" / "mine.yaml"
    study.write_text("base: DEMO-05")
    with pytest.raises(UserError, match="is compare_to of DEMO-06, base of mine; delete or change"):
        remove_experiment("DEMO-05", tmp_path)
    assert own.is_file()


def test_without_git_nothing_tells_ones_own_experiment_and_its_file_is_named(own, tmp_path):
    (tmp_path / ".git").rename(tmp_path / "elsewhere")
    with pytest.raises(UserError, match=f"delete the file {own}"):
        remove_experiment("DEMO-05", tmp_path)


def test_an_experiment_never_comes_back_over_another(own, tmp_path):
    remove_experiment("DEMO-05", tmp_path)
    own.write_text("newer")
    with pytest.raises(UserError, match=r"DEMO-05\.yaml: exists again"):
        restore_last(tmp_path)
    assert own.read_text() == "newer"
