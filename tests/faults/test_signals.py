"""Signals and kills that reach `oelm run` and its kernel."""

import os
import signal
from pathlib import Path

import pytest

from oelm_lib import config, runs, training
from oelm_lib.training import checkpoint
from tests.faults.conftest import CHANGES, equal, only_run, record, settings
from tests.faults.test_disk import wait_for_step
from tests.launch.conftest import wait_for

pytestmark = pytest.mark.slow
LONG = settings(train__max_steps=100000, train__save_interval=100000)


def test_sigterm_to_everything_in_the_middle_of_a_slow_save_leaves_a_whole_checkpoint_and_75(
    oelm, tmp_path
):
    slow = str(Path(__file__).parent / "slow_disk")
    outputs = tmp_path / "outputs"
    process = oelm(
        "run",
        "DEMO-02",
        *settings(train__max_steps=100000, train__save_interval=50),
        PYTHONPATH=slow,
    )
    path = wait_for_step(process, outputs, 10)
    wait_for(lambda: list(path.glob(".latest.pt.*.tmp")), "a save", process=process)
    kernel = runs.read_status(path)["pid"]
    os.killpg(process.pid, signal.SIGTERM)
    os.kill(
        kernel, signal.SIGTERM
    )  # a session of its own, so a scheduler would reach it separately
    out, err = process.communicate(timeout=120)
    assert process.returncode == 75, out + err
    assert "the same command continues it from its last checkpoint" in out
    assert (runs.state(path), runs.read_status(path)["step"]) == (
        "stopped",
        checkpoint.load(path / "latest.pt")["step"],
    )
    assert not (path / "STOP").exists()


def test_a_signal_while_the_kernel_starts_stops_before_the_first_step(oelm, tmp_path):
    process = oelm("run", "DEMO-02", *LONG)
    logs = "outputs/*/seed42/notebook.log"
    wait_for(lambda: list(tmp_path.glob(logs)), "the kernel's log", process=process)
    process.send_signal(signal.SIGHUP)
    out, err = process.communicate(timeout=120)
    assert process.returncode == 75, out + err
    path = only_run(tmp_path / "outputs")
    assert (runs.state(path), runs.read_status(path)["step"]) == ("stopped", 0)


def test_a_killed_kernel_is_reported_and_the_same_command_ends_bit_equal(
    oelm, stories, monkeypatch, tmp_path
):
    process = oelm("run", "DEMO-02", *settings())
    path = wait_for_step(process, tmp_path / "outputs", 20)
    os.kill(runs.read_status(path)["pid"], signal.SIGKILL)
    out, err = process.communicate(timeout=120)
    assert process.returncode == 1, out + err
    assert "the same command continues it from its last checkpoint" in err
    assert "Traceback" not in err
    assert runs.state(path) == "dead"
    assert not list(path.glob("*train.*"))  # a notebook or page would look complete
    process = oelm("run", "DEMO-02", *settings())
    out, err = process.communicate(timeout=300)
    assert process.returncode == 0, out + err
    monkeypatch.setenv("OELM_DATA", str(stories))
    cfg = config.load_config("DEMO-02", CHANGES)
    twin = runs.open_run(cfg, 42, tmp_path / "undisturbed")
    training.train(twin)
    assert equal(record(path), record(twin.path))


def test_oelm_stop_asks_waits_and_tells(oelm, tmp_path):
    process = oelm("run", "DEMO-02", *LONG)
    path = wait_for_step(process, tmp_path / "outputs", 10)
    asked = oelm("stop", "DEMO-02")
    out, err = asked.communicate(timeout=120)
    assert asked.returncode == 0, err
    assert out.splitlines()[-1] == f"{path}: stopped"
    assert process.wait(120) == 75
    again = oelm("stop", "DEMO-02")
    out, err = again.communicate(timeout=60)
    assert again.returncode == 2
    assert "nothing to stop" in err
