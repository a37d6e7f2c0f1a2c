"""Commands that the workbench starts: detached, with records that tell a new kernel of them."""

import os

import pytest

from oelm_lib.errors import UserError
from oelm_lib.files import read_json, write_json
from oelm_lib.runs.reading import read_status, state
from oelm_lib.workbench import actions
from oelm_lib.workbench.launches import (
    MOST_SHOWN,
    last_start,
    live_launches,
    recent_launches,
    start_command,
)
from oelm_lib.workbench.rows import RunRows
from tests import runs_factory
from tests.workbench.launched import wait_for_end


def test_a_command_runs_detached_and_its_record_tells_a_new_kernel_of_it(tmp_path):
    launch = start_command(["status", "DEMO-01"], tmp_path)
    assert launch.is_alive
    (ended,) = wait_for_end(tmp_path)
    assert ended.command == "oelm status DEMO-01"
    assert "no such runs yet" in ended.last_line()
    assert (tmp_path / "logs").is_dir() and len(list((tmp_path / "logs").iterdir())) == 2
    os.utime(ended.log, (1, 1))
    assert recent_launches(tmp_path) == []


def test_a_live_command_is_known_without_its_log(tmp_path, sleepers):
    launch = start_command(["run", "DEMO-02"], tmp_path, ["DEMO-02_oelm_freeze/seed42"])
    launch.log.unlink()
    (live,) = live_launches(tmp_path)
    assert live == launch
    assert live.last_line() == ""


def test_a_command_has_a_session_of_its_own(tmp_path):
    start_command(["--help"], tmp_path)
    record = next((tmp_path / "logs").glob("*.json"))
    pid = read_json(record)["pid"]
    assert os.getsid(pid) == pid != os.getsid(0)
    wait_for_end(tmp_path)


def test_an_outputs_folder_that_cannot_be_made_is_one_line(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="was not started"):
        start_command(["status"], tmp_path / "file" / "outputs")


def test_a_run_is_starting_until_its_process_writes(tmp_path, sleepers):
    for seed in (42, 43):
        runs_factory.make_run(tmp_path, "DEMO-02", seed, state="stopped", done=0.5)
    actions.start_runs("DEMO-02", "42,43", tmp_path, at_once=1)
    states = {row["seed"]: row["state"] for row in RunRows(tmp_path).read() if "seed" in row}
    assert states == {42: "starting", 43: "stopped"}
    sleepers[0].kill()
    wait_for_end(tmp_path)
    assert "starting" not in {row["state"] for row in RunRows(tmp_path).read()}


def test_a_run_that_died_under_a_living_command_is_starting_no_more(tmp_path, sleepers):
    """It could be neither continued nor removed before the whole command had ended."""
    path = runs_factory.make_run(tmp_path, "DEMO-02", 42, state="dead", done=0.5)
    actions.start_runs("DEMO-02", "42,43", tmp_path, at_once=2)
    (launch,) = recent_launches(tmp_path)
    assert launch.holds(path)  # it died before the command began, which will continue it
    write_json(path / "status.json", read_status(path) | {"heartbeat": launch.started + 1})
    assert state(path) == "dead" and not launch.holds(path)
    states = {row["seed"]: row["state"] for row in RunRows(tmp_path).read() if "seed" in row}
    assert states[42] == "dead?"


def test_a_command_whose_runs_were_started_again_is_shown_no_more(tmp_path, sleepers):
    path = runs_factory.make_run(tmp_path, "DEMO-02", 42, state="stopped", done=0.5)
    actions.start_runs("DEMO-02", "42", tmp_path)
    sleepers[0].kill()
    assert [launch.is_alive for launch in wait_for_end(tmp_path)] == [False]
    actions.continue_runs([path], tmp_path)
    assert [launch.is_alive for launch in recent_launches(tmp_path)] == [True]


def test_a_command_that_runs_is_listed_however_many_came_after_it(tmp_path, sleepers):
    actions.start_runs("DEMO-02", "42,43", tmp_path)
    for number in range(MOST_SHOWN + 2):
        start_command(["report", f"DEMO-{number:02}"], tmp_path)
    for process in sleepers[1:]:
        process.kill()
        process.wait()
    *ended, first = recent_launches(tmp_path)
    assert first.command == "oelm run DEMO-02 --seeds 42,43 --workers 1" and first.is_alive
    assert [launch.is_alive for launch in ended] == MOST_SHOWN * [False]
    runs_factory.make_run(tmp_path, "DEMO-02", 42, state="stopped", done=0.5)
    os.utime(tmp_path / "DEMO-02_oelm_freeze" / "seed42" / "status.json", (1, 1))
    states = {row["seed"]: row["state"] for row in RunRows(tmp_path).read() if "seed" in row}
    assert states == {42: "starting"}


def test_the_last_start_of_an_experiment_is_known_to_a_new_kernel(tmp_path, sleepers):
    assert last_start("DEMO-02", tmp_path) is None
    actions.start_runs("DEMO-02", "42,43", tmp_path, at_once=2)
    actions.start_runs("DEMO-03", "7", tmp_path)
    start_command(["run", "DEMO-02"], tmp_path, ["DEMO-02_oelm_freeze+0123abcd/seed9"])
    last = last_start("DEMO-02", tmp_path)
    assert last.at_once == 2
    assert last.runs == ("DEMO-02_oelm_freeze/seed42", "DEMO-02_oelm_freeze/seed43")
