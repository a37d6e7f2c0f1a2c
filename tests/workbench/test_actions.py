"""What the buttons do, and that what is not possible is one line and changes nothing."""

import os
import subprocess
import threading
import time

import pytest

from oelm_lib import config
from oelm_lib.errors import UserError
from oelm_lib.files import read_json, write_json
from oelm_lib.runs.process import process_start, this_process
from oelm_lib.runs.reading import state
from oelm_lib.runs.stop import ask_to_stop
from oelm_lib.workbench import actions, page_actions
from oelm_lib.workbench.launches import (
    Launch,
    recent_launches,
    start_command,
)
from tests import runs_factory
from tests.workbench.launched import wait_for_end


@pytest.fixture
def started(monkeypatch):
    """Commands that an action starts, in place of their processes."""
    commands = []

    def start(arguments, outputs, runs=(), at_once=1):
        commands.append(arguments)
        return Launch(" ".join(["oelm", *arguments]), outputs / "log", True)

    for module in (actions, page_actions):
        monkeypatch.setattr(module, "start_command", start)
    return commands


def test_finished_seeds_are_left_out_and_the_others_started(tmp_path, started):
    runs_factory.make_run(tmp_path, "DEMO-02", 42)
    line = actions.start_runs("DEMO-02", "42, 43,44", tmp_path, at_once=2)
    assert started == [["run", "DEMO-02", "--seeds", "43,44", "--workers", "2"]]
    assert line.startswith("Started: oelm run DEMO-02 --seeds 43,44")
    assert "\nLeft out, since done: seed 42." in line


@pytest.mark.parametrize(
    ("exp", "seeds", "words"),
    [
        ("DEMO-02", "42", "these seeds are all done"),
        ("DEMO-02", "forty", "whole numbers of at most 18 digits"),
        ("DEMO-02", "", "whole numbers"),
        ("DEMO-99", "42", "no experiment"),
        ("DEMO-02", "7", "seed 7: runs or waits already"),
    ],
)
def test_a_start_that_is_not_possible_is_one_line(tmp_path, started, exp, seeds, words):
    runs_factory.make_run(tmp_path, "DEMO-02", 42)
    runs_factory.make_run(tmp_path, "DEMO-02", 7, state="running", done=0.5)
    with pytest.raises(UserError, match=words):
        actions.start_runs(exp, seeds, tmp_path)
    assert started == []


def test_a_queue_that_holds_the_run_already_is_one_line(tmp_path, started):
    queued(tmp_path, os.getpid())
    with pytest.raises(UserError, match="runs or waits already"):
        actions.start_runs("DEMO-02", "5", tmp_path)
    assert started == []


def test_where_no_core_is_free_the_line_says_so(tmp_path, started, monkeypatch):
    runs_factory.make_run(tmp_path, "DEMO-02", 1, state="running", done=0.5)
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0}, raising=False)
    line = actions.start_runs("DEMO-03", "1", tmp_path)
    assert "No core is free, so each run will be slower (cores: 1, in progress: 1)." in line
    assert len(started) == 1


def test_a_start_repeats_the_warnings_of_the_form(tmp_path, started, params):
    path = params / "DEMO-02.yaml"
    path.write_text(path.read_text().replace("  freeze_q:", "  qk_norm: true\n  freeze_q:"))
    line, *warnings = actions.start_runs("DEMO-02", "1", tmp_path).splitlines()
    assert line.startswith("Started: ") and len(started) == 1
    assert warnings == config.change_warnings("DEMO-02")
    assert "changes is not what differs" in warnings[0] and "gets no PASS" in warnings[1]


def test_continue_takes_the_overrides_of_a_rehearsal_and_skips_what_is_done(tmp_path, started):
    done = runs_factory.make_run(tmp_path, "DEMO-02", 1)
    stopped = runs_factory.make_run(tmp_path, "DEMO-02", 2, state="stopped", done=0.5)
    rehearsal = runs_factory.make_run(
        tmp_path, "DEMO-02", 3, overrides={"train.max_steps": 130}, state="dead", done=0.5
    )
    actions.continue_runs([done, stopped, rehearsal], tmp_path)
    assert started == [
        ["run", "DEMO-02", "--seeds", "2"],
        ["run", "DEMO-02", "--seeds", "3", "--set", "train.max_steps=130"],
    ]
    with pytest.raises(UserError, match="none can go on"):
        actions.continue_runs([done], tmp_path)


def test_continue_over_two_experiments_tells_both_starts_in_its_first_line(tmp_path, started):
    runs = [
        runs_factory.make_run(tmp_path, exp, 2, state="stopped", done=0.5)
        for exp in ("DEMO-02", "DEMO-03")
    ]
    commands = [f"oelm run {exp} --seeds 2" for exp in ("DEMO-02", "DEMO-03")]
    line = actions.continue_runs(runs, tmp_path).splitlines()[0]
    assert line == f"Started: {'; '.join(commands)}." and len(started) == 2


def test_where_one_of_two_experiments_cannot_go_on_nothing_starts(tmp_path, started, params):
    runs = [
        runs_factory.make_run(tmp_path, exp, 2, state="stopped", done=0.5)
        for exp in ("DEMO-02", "DEMO-03")
    ]
    (params / "DEMO-03.yaml").write_text("id: [")
    with pytest.raises(UserError, match=r"DEMO-03\.yaml: not valid YAML"):
        actions.continue_runs(runs, tmp_path)
    assert started == []


def test_a_failed_start_does_not_hide_the_one_before(tmp_path, sleepers):
    """The file of DEMO-03 got another slug: its run has another folder now, which is busy."""
    first = runs_factory.make_run(tmp_path, "DEMO-02", 2, state="stopped", done=0.5)
    busy = runs_factory.make_run(tmp_path, "DEMO-03", 2, state="running", done=0.5)
    old = tmp_path / "DEMO-03_old_slug" / "seed2"
    old.mkdir(parents=True)
    line, refusal = actions.continue_runs([first, old], tmp_path).splitlines()[:2]
    assert line == "Started: oelm run DEMO-02 --seeds 2." and len(sleepers) == 1
    assert refusal.startswith("Not started: DEMO-03 seed 2: runs or waits already")
    assert state(busy) == "running"


def test_start_afresh_takes_one_run(tmp_path, started):
    first, second = (runs_factory.make_run(tmp_path, "DEMO-02", seed) for seed in (1, 2))
    line = actions.restart_run([first], tmp_path)
    assert started == [["run", "DEMO-02", "--seeds", "1", "--fresh"]]
    assert "kept as DEMO-02_oelm_freeze/seed1.<date>-<time>" in line
    with pytest.raises(UserError, match="select one"):
        actions.restart_run([first, second], tmp_path)


def test_stop_asks_those_that_train_and_says_where_nothing_does(tmp_path):
    done = runs_factory.make_run(tmp_path, "DEMO-02", 1)
    running = runs_factory.make_run(tmp_path, "DEMO-02", 2, state="running", done=0.5)
    assert "seed2: asked to save and stop" in actions.stop_runs([done, running], tmp_path)
    assert (running / "STOP").exists() and not (done / "STOP").exists()
    with pytest.raises(UserError, match="nothing to stop"):
        actions.stop_runs([done], tmp_path)
    with pytest.raises(UserError, match="no run is selected"):
        actions.stop_runs([], tmp_path)


def test_where_one_of_two_cannot_be_stopped_the_line_tells_of_the_other(tmp_path):
    running, stuck = (
        runs_factory.make_run(tmp_path, "DEMO-02", seed, state="running", done=0.5)
        for seed in (1, 2)
    )
    (stuck / "STOP").symlink_to(tmp_path / "nowhere" / "STOP")
    line, refusal = actions.stop_runs([running, stuck], tmp_path).splitlines()
    assert line == "DEMO-02_oelm_freeze/seed1: asked to save and stop"
    assert "cannot be asked to stop" in refusal
    with pytest.raises(UserError, match="cannot be asked to stop"):
        actions.stop_runs([stuck], tmp_path)


def test_a_run_that_cannot_be_asked_to_stop_is_named_with_the_cause(tmp_path):
    running = runs_factory.make_run(tmp_path, "DEMO-02", 2, state="running", done=0.5)
    (running / "STOP").symlink_to(tmp_path / "nowhere" / "STOP")
    with pytest.raises(
        UserError, match="cannot be asked to stop: No such file or directory; create"
    ):
        ask_to_stop(running)


def test_stopping_a_run_that_waits_stops_its_queue(tmp_path):
    queue = subprocess.Popen(["sleep", "60"])
    try:
        assert "its queue was asked" in actions.stop_runs([queued(tmp_path, queue.pid)], tmp_path)
        assert queue.wait(20) != 0
    finally:
        queue.kill()
        queue.wait()


def test_a_run_that_trains_is_not_removed_and_one_removed_comes_back(tmp_path):
    running = runs_factory.make_run(tmp_path, "DEMO-02", 2, state="running", done=0.5)
    done = runs_factory.make_run(tmp_path, "DEMO-02", 1)
    for paths in ([running], [done, running]):
        with pytest.raises(UserError, match="seed2: trains or waits; press Stop") as refusal:
            actions.remove_runs(paths, tmp_path)
        assert "oelm" not in str(refusal.value).replace("oelm_freeze", "") and done.is_dir()
    assert "brings back all of them" in actions.remove_runs([done], tmp_path)
    assert not done.exists()
    with pytest.raises(UserError, match="gone already"):
        actions.remove_runs([done], tmp_path)
    assert "Back again" in actions.undo_remove(tmp_path) and state(done) == "done"
    with pytest.raises(UserError, match="trash is empty"):
        actions.undo_remove(tmp_path)


def test_undo_brings_back_every_run_of_the_last_removal(tmp_path):
    runs = [runs_factory.make_run(tmp_path, "DEMO-02", seed) for seed in (1, 2, 3)]
    actions.remove_runs(runs[:1], tmp_path)
    actions.remove_runs(runs[1:], tmp_path)
    line = actions.undo_remove(tmp_path)
    assert "seed2" in line and "seed3" in line
    assert [run.is_dir() for run in runs] == [False, True, True]


def test_a_comparison_names_the_arms_that_are_done_and_explore_one_run_of_each(tmp_path, started):
    rows = [
        {"run": "DEMO-01_baseline/seed1", "id": "DEMO-01", "state": "done"},
        {"run": "DEMO-02_oelm_freeze/seed1", "id": "DEMO-02", "state": "done"},
        {"run": "DEMO-02_oelm_freeze/seed2", "id": "DEMO-02", "state": "done"},
        {"run": "DEMO-03_oelm_random/seed1", "id": "DEMO-03", "state": "running"},
    ]
    for action in (page_actions.compare_runs, page_actions.explore_runs):
        line, left_out = action(rows, tmp_path).splitlines()
        assert line.startswith("Started: oelm report")
        assert left_out == "Left out, since not done: DEMO-03_oelm_random/seed1 (running)."
        with pytest.raises(UserError, match="none of the selected runs is done"):
            action(rows[3:], tmp_path)
    runs = "DEMO-01_baseline/seed1 DEMO-02_oelm_freeze/seed1"
    assert started == [["report", "DEMO-01 DEMO-02"], ["report", "explore", "--runs", runs]]


def test_a_baseline_alone_is_no_comparison(tmp_path, started):
    base = {"run": "DEMO-01_baseline/seed1", "id": "DEMO-01", "state": "done", "compare_to": None}
    arm = {"run": "DEMO-07_x/seed1", "id": "DEMO-07", "state": "running", "compare_to": "DEMO-01"}
    with pytest.raises(UserError, match=r"only the baseline DEMO-01 is done.*DEMO-07_x/seed1"):
        page_actions.compare_runs([base, arm], tmp_path)
    with pytest.raises(UserError, match="Select runs of another experiment"):
        page_actions.compare_runs([base], tmp_path)
    assert started == []


def test_a_page_that_is_being_made_is_not_made_twice(tmp_path, sleepers):
    page_actions.make_page("compare", tmp_path)
    with pytest.raises(UserError, match="oelm report compare: runs already"):
        page_actions.make_page("compare", tmp_path)
    run = runs_factory.make_run(tmp_path, "DEMO-02", 1)
    page_actions.export_runs([run], tmp_path)
    with pytest.raises(UserError, match="runs already"):
        page_actions.export_runs([run], tmp_path)
    assert len(recent_launches(tmp_path)) == 2


def test_a_second_click_on_start_starts_no_second_queue(tmp_path, sleepers):
    actions.start_runs("DEMO-02", "42,43", tmp_path)
    with pytest.raises(UserError, match="seed 42, 43: runs or waits already"):
        actions.start_runs("DEMO-02", "42,43", tmp_path)
    assert len(recent_launches(tmp_path)) == 1
    stopped = runs_factory.make_run(tmp_path, "DEMO-02", 42, state="stopped", done=0.5)
    os.utime(stopped / "status.json", (1, 1))
    with pytest.raises(UserError, match="none can go on"):
        actions.continue_runs([stopped], tmp_path)
    with pytest.raises(UserError, match="trains or waits"):
        actions.remove_runs([stopped], tmp_path)


def started_at_once(count, start):
    """Lines of `count` starts that begin in the same moment, refusals among them."""
    gate, lines = threading.Barrier(count), []

    def press():
        gate.wait()
        try:
            lines.append(start())
        except UserError as error:
            lines.append(str(error))

    threads = [threading.Thread(target=press) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return lines


@pytest.mark.parametrize(
    ("start", "refusal"),
    [
        (lambda out: actions.start_runs("DEMO-02", "42,43", out), "seed 42, 43: runs or waits"),
        (lambda out: page_actions.make_page("compare", out), "oelm report compare: runs already"),
    ],
)
def test_only_one_of_several_simultaneous_starts_begins(
    tmp_path, sleepers, monkeypatch, start, refusal
):
    def start_slowly(*arguments):
        time.sleep(0.2)  # the others look at what runs meanwhile
        return start_command(*arguments)

    for module in (actions, page_actions):
        monkeypatch.setattr(module, "start_command", start_slowly)
    lines = started_at_once(3, lambda: start(tmp_path))
    assert sum(line.startswith("Started: oelm ") for line in lines) == len(sleepers) == 1
    assert sum(refusal in line for line in lines) == 2


def test_a_folder_of_logs_that_cannot_be_written_starts_nothing(tmp_path, started):
    (tmp_path / "logs").write_text("")
    with pytest.raises(UserError, match="nothing was started: File exists"):
        actions.start_runs("DEMO-02", "42", tmp_path)
    assert started == []


def test_a_run_that_failed_in_a_live_queue_can_go_on(tmp_path, sleepers):
    actions.start_runs("DEMO-02", "42,43", tmp_path)
    failed = runs_factory.make_run(tmp_path, "DEMO-02", 42, state="failed", done=0.5)
    status = read_json(failed / "status.json")
    write_json(failed / "status.json", status | {"heartbeat": time.time() + 1})
    assert "Started: oelm run DEMO-02 --seeds 42" in actions.continue_runs([failed], tmp_path)


def test_a_run_that_waits_in_slurm_can_be_continued_since_its_job_may_be_cancelled(
    tmp_path, sleepers
):
    waiting = runs_factory.make_run(tmp_path, "DEMO-02", 42, state="queued", done=0.5)
    status = read_json(waiting / "status.json")
    write_json(waiting / "status.json", status | {"job": "4711_0"})
    with pytest.raises(UserError, match=r"seed42 is queued, so there is nothing .* scancel"):
        actions.stop_runs([waiting], tmp_path)
    assert "Started: oelm run DEMO-02 --seeds 42" in actions.continue_runs([waiting], tmp_path)


def test_stop_just_after_the_start_of_a_run_stops_its_command(tmp_path, sleepers):
    actions.start_runs("DEMO-02", "42", tmp_path)
    path = tmp_path / "DEMO-02_oelm_freeze" / "seed42"
    path.mkdir(parents=True)
    line = actions.stop_runs([path], tmp_path)
    assert line == "oelm run DEMO-02 --seeds 42: asked to stop, with all its runs"
    assert not any(launch.is_alive for launch in wait_for_end(tmp_path))
    with pytest.raises(UserError, match="seed42 is empty, so there is nothing to stop"):
        actions.stop_runs([path], tmp_path)


def test_stop_stops_every_command_that_holds_the_run(tmp_path, sleepers):
    running = runs_factory.make_run(tmp_path, "DEMO-02", 42, state="running", done=0.5)
    name = "DEMO-02_oelm_freeze/seed42"
    for _ in range(2):
        start_command(["run", "DEMO-02", "--seeds", "42,43"], tmp_path, [name])
    start_command(["run", "DEMO-03"], tmp_path, ["DEMO-03_oelm_random/seed42"])
    actions.stop_runs([running], tmp_path)
    for process in sleepers[:2]:
        assert process.wait(20) != 0
    assert sleepers[2].poll() is None and not (running / "STOP").exists()


def test_stop_of_one_that_trains_lets_the_other_runs_of_its_command_go_on(tmp_path, sleepers):
    running = runs_factory.make_run(tmp_path, "DEMO-02", 42, state="running", done=0.5)
    start_command(["run", "DEMO-02"], tmp_path, ["DEMO-02_oelm_freeze/seed42", "other/seed1"])
    assert "seed42: asked to save and stop" in actions.stop_runs([running], tmp_path)
    assert (running / "STOP").exists() and sleepers[0].poll() is None


def test_runs_that_begin_count_where_cores_are_short(tmp_path, sleepers, monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0, 1}, raising=False)
    assert "No core" not in actions.start_runs("DEMO-02", "1,2,3", tmp_path, at_once=2)
    line = actions.start_runs("DEMO-03", "1", tmp_path)
    assert "No core is free, so each run will be slower (cores: 2, in progress: 2)." in line


def test_a_rehearsal_that_never_began_is_not_continued_as_another_run(tmp_path, started):
    path = tmp_path / "DEMO-02_oelm_freeze+0123abcd" / "seed1"
    path.mkdir(parents=True)
    with pytest.raises(UserError, match="its overrides are not recorded"):
        actions.continue_runs([path], tmp_path)
    assert started == []


def queued(outputs, pid):
    """A run that a queue with this process holds."""
    path = outputs / "DEMO-02_oelm_freeze" / "seed5"
    path.mkdir(parents=True)
    status = {"state": "queued", "step": 0, "max_steps": 650, "started": None}
    process = {"pid": pid, "process_start": process_start(pid)}
    write_json(path / "status.json", status | {"heartbeat": time.time()} | this_process() | process)
    return path
