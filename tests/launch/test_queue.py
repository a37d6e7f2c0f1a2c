"""The queue with real runs: killed, interrupted, on GPUs that others use."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time

import psutil
import pytest

from oelm_lib.config import ROOT
from oelm_lib.errors import FAILED
from oelm_lib.files import write_json
from oelm_lib.launch import queue as queue_module
from oelm_lib.launch.jobs import make_jobs
from oelm_lib.launch.queue import MOST_STARTS, Queue, run_queue
from oelm_lib.launch.slots import IdleWatch, Slots
from oelm_lib.runs.find import find_runs
from oelm_lib.runs.reading import ACTIVE, read_metrics, read_status, read_summary, state
from tests.launch.conftest import descendants, wait_for
from tests.launch.fake_nvml import FakeNvml
from tests.runs.test_lock import Writer

pytestmark = [pytest.mark.slow, pytest.mark.long]


def test_runs_go_only_to_gpus_that_others_have_left_and_broken_ones_stop_no_other(
    tiny_env, tiny, capsys
):
    nvml = FakeNvml(2)
    nvml.pids[0] = [os.getpid()]
    watch = IdleWatch(nvml, clock=lambda: 100 * time.monotonic())
    overrides = tiny()  # machine.device=cpu: the GPUs are not real
    jobs = make_jobs(["DEMO-01", "DEMO-02", "DEMO-03"], [1], overrides)
    (broken := jobs[0].path).mkdir(parents=True)
    (broken / "config.yaml").write_text("{")
    jobs[2].path.parent.touch()  # a file where its folder should be
    assert run_queue(jobs, overrides, Slots(gpus=("0", "1"), watch=watch)) == FAILED
    said = capsys.readouterr().out
    assert f"waiting: GPU 0: used by process {os.getpid()}" in said
    assert said.count("DEMO-01 seed 1: started") == 1
    assert said.count("DEMO-01 seed 1: failed") == 1
    assert "config.yaml: not readable as YAML" in said
    assert f"DEMO-03 seed 1: failed: {jobs[2].path}: cannot be started here: Not a" in said
    assert "2 failed: DEMO-01 seed 1, DEMO-03 seed 1;" in said
    assert "DEMO-02 seed 1: done" in said
    assert read_status(jobs[1].path)["gpus"] == "1"
    assert read_summary(jobs[1].path)["steps"] == 24


def test_runs_that_fail_for_one_reason_say_it_once_and_leave_no_folder(tiny_env, tiny, capsys):
    overrides = tiny(model__vocab_size=50)
    jobs = make_jobs(["DEMO-01", "DEMO-02"], [1, 2], overrides)
    assert run_queue(jobs, overrides, Slots(workers=2)) == 1
    printed = capsys.readouterr().out
    assert printed.count("model.vocab_size = 50, but stories") == 1, printed
    assert printed.count("for the same reason as DEMO-0") == 3
    assert "4 failed: DEMO-01 seed 1, " in printed
    assert list(tiny_env.glob("*")) == []


def test_a_run_in_use_is_started_again_a_few_times(tiny_env, tiny, capsys):
    (job,) = make_jobs(["DEMO-01"], [1], tiny())
    job.path.mkdir(parents=True)
    writer = Writer(job.path)
    try:
        assert writer("acquire") == "held"
        assert run_queue([job], tiny(), Slots()) == FAILED
    finally:
        writer.die()
    printed = capsys.readouterr().out
    assert printed.count("DEMO-01 seed 1: started") == MOST_STARTS
    assert printed.count("DEMO-01 seed 1: failed") == 1 and "in use by process" in printed


def test_a_run_that_waits_is_seen_as_queued_from_another_host(tiny_env, tiny, monkeypatch):
    now = [1000.0]
    monkeypatch.setattr(queue_module.time, "monotonic", lambda: now[0])
    (job,) = make_jobs(["DEMO-01"], [1], tiny())
    waiting = Queue([job], tiny(), Slots())

    def age():
        """Let the heartbeat be an hour old."""
        status = read_status(job.path)
        write_json(job.path / "status.json", status | {"heartbeat": time.time() - 3600})

    waiting._mark_waiting()
    with monkeypatch.context() as elsewhere:
        elsewhere.setattr(socket, "gethostname", lambda: "another")
        assert state(job.path) == "queued"
        age()
        assert state(job.path) == "stopped"
    now[0] += queue_module.MARK_SECONDS
    waiting._mark_waiting()
    monkeypatch.setattr(socket, "gethostname", lambda: "another")
    assert state(job.path) == "queued"


def test_the_queue_gives_up_when_no_gpu_becomes_free(tiny_env, tiny, capsys):
    nvml = FakeNvml(1)
    nvml.used[0] = 20.0
    jobs = make_jobs(["DEMO-01"], [1], tiny())
    assert run_queue(jobs, tiny(), Slots(gpus=("0",), watch=IdleWatch(nvml), max_wait=1.0)) == 1
    assert (
        "gave up after 1s without a run: GPU 0: 20.0 of 24.0 GiB in use" in capsys.readouterr().out
    )
    assert not (jobs[0].path / "status.json").exists()  # no longer queued


def test_a_queue_that_may_not_wait_still_trains_all_of_its_runs(tiny_env, tiny):
    """It gave up after its first step, while a run was active."""
    jobs = make_jobs(["DEMO-01"], [1, 2], tiny())
    assert run_queue(jobs, tiny(), Slots(max_wait=0.0)) == 0


def test_a_killed_queue_is_started_again_and_loses_and_repeats_nothing(
    tiny_env, tiny, start_oelm, tmp_path
):
    # So many that the runs left behind still train when the second queue, a new process, looks.
    steps = 1200
    overrides = tiny(
        train__max_steps=steps, train__eval_interval=steps // 2, train__save_interval=steps // 4
    )
    command = ["run", "DEMO-01", "DEMO-02", "DEMO-03", "--workers", "2"]
    queue = start_oelm(*command, overrides=overrides)
    running = wait_for(lambda: [run for run in find_runs() if state(run) in ACTIVE], "a run starts")
    assert "queued" in [state(run) for run in find_runs()]
    os.kill(queue.pid, signal.SIGKILL)
    queue.wait()
    writer = read_status(running[0])["pid"]
    again = start_oelm(*command, overrides=overrides, log="again.log")
    assert again.wait(1200) == 0
    said = (tmp_path / "again.log").read_text()
    assert f"runs as process {writer} on" in said
    assert ": done in" in said
    assert len(find_runs()) == 3
    for run in find_runs():
        assert read_summary(run)["steps"] == steps
        train = read_metrics(run).query("event == 'train'")
        assert train["step"].tolist() == list(range(10, steps + 1, 10))
    assert read_status(running[0])["pid"] == writer


@pytest.mark.parametrize("presses", [1, 2])
def test_ctrl_c_leaves_no_process_behind(
    tiny_env, tiny, start_oelm, tmp_path, monkeypatch, presses
):
    if presses == 2:  # the runs are still saving when it comes
        monkeypatch.setenv("PYTHONPATH", str(ROOT / "tests/faults/slow_disk"))
        monkeypatch.setenv("SLOW_DISK_SECONDS", "30")
    queue = start_oelm(
        "run", "DEMO-01", "DEMO-02", "--workers", "2", overrides=tiny(train__max_steps=200000)
    )
    going = {"running", "evaluating", "saving"}
    wait_for(lambda: sum(state(run) in going for run in find_runs()) == 2, "both runs go")
    started = descendants(queue.pid)
    assert len(started) >= 4  # two `oelm run`, two kernels
    queue.send_signal(signal.SIGINT)
    if presses == 2:
        wait_for(
            lambda: "stopping: " in (tmp_path / "oelm.log").read_text(), "the queue passes it on"
        )
        queue.send_signal(signal.SIGINT)
    assert queue.wait(300) == 75
    psutil.wait_procs(started, timeout=60)
    assert [process.pid for process in started if process.is_running()] == []
    assert {state(run) for run in find_runs()} == ({"stopped"} if presses == 1 else {"dead"})
    if presses == 1:
        assert all((run / "latest.pt").is_file() for run in find_runs())


def test_a_second_sigterm_does_not_kill_the_runs(tiny_env, tiny, monkeypatch):
    queue = Queue(make_jobs(["DEMO-01"], [1, 2], tiny()), tiny(), Slots())
    run = subprocess.Popen(["sleep", "60"], start_new_session=True)
    queue._running[run] = None
    sent = []
    monkeypatch.setattr(os, "killpg", lambda pid, number: sent.append(number))
    queue.on_signal(signal.SIGTERM, None)
    queue.on_signal(signal.SIGTERM, None)
    assert sent == [signal.SIGINT] and run.poll() is None
    run.kill()
    run.wait()


def test_a_queue_that_fails_lets_its_runs_save_and_leaves_no_process(tiny_env, tiny, monkeypatch):
    jobs = make_jobs(["DEMO-01", "DEMO-02"], [1], tiny())
    tiny_env.mkdir()
    jobs[1].path.parent.touch()  # a file where its folder should be: a line is printed
    queue = Queue(jobs, tiny(), Slots(workers=2))
    queue._waiting.remove(jobs[0])
    run = subprocess.Popen(["sleep", "60"], start_new_session=True)
    queue._running[run] = queue_module._Started(jobs[0], (), time.monotonic())
    with open("/dev/full", "w") as full:
        monkeypatch.setattr(sys, "stdout", full)
        with pytest.raises(OSError, match="No space left"):
            queue.execute()
        monkeypatch.undo()
        with contextlib.suppress(OSError):
            full.close()
    assert run.poll() == -signal.SIGINT
