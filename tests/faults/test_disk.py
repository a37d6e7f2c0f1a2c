"""A disk that fills up, and a folder that turns read-only, in the middle of a run."""

import contextlib
import os
import re
import shutil
import subprocess
import tempfile
import time
from pathlib import Path

import pytest

from oelm_lib import runs, training
from oelm_lib.errors import UserError
from oelm_lib.training import checkpoint
from oelm_lib.training.state import TrainingState
from tests.faults.conftest import equal, leftovers, only_run, record, settings

NOBODY = 65534


@pytest.fixture
def small_disk(tmp_path):
    """A disk of 8 MiB for the runs."""
    path = tmp_path / "disk"
    path.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=8m", "none", path], capture_output=True, text=True
    )
    if mounted.returncode:
        pytest.skip(f"mounting a small disk needs root: {mounted.stderr.strip()}")
    yield path
    subprocess.run(["umount", "-l", path], check=True)


def fill(disk, left):
    """Fill the disk but for `left` bytes while a run writes there; return the file to delete."""
    filler = disk / "filler"
    with open(filler, "wb", buffering=0) as file:
        with contextlib.suppress(OSError):
            while file.write(bytes(1 << 16)):
                pass
        file.truncate(max(file.tell() - left, 0))
    return filler


def at_step(monkeypatch, step, action):
    """Do something when the loop has done `step` steps, before the step is logged."""
    update = TrainingState.update

    def update_and_act(state):
        rate = update(state)
        if state.step == step:
            action()
        return rate

    monkeypatch.setattr(TrainingState, "update", update_and_act)


# Step 10 appends a row and step 15 writes a checkpoint; the status is rewritten in between.
@pytest.mark.parametrize(
    ("step", "left"), [(10, 0), (12, 20_000), (15, 20_000)], ids=["row", "evaluation", "save"]
)
def test_a_full_disk_ends_in_one_line_and_the_run_goes_on(
    tiny_run, small_disk, monkeypatch, step, left
):
    undisturbed = tiny_run(folder="undisturbed")
    training.train(undisturbed)
    run = tiny_run(folder=small_disk)
    at_step(monkeypatch, step, lambda: fill(small_disk, left))
    with pytest.raises(
        UserError,
        match=r"No space left on device; free the disk.*continues the run",
    ):
        training.train(run)
    monkeypatch.undo()
    monkeypatch.setenv("OELM_DATA", str(run.corpus.path.parents[1]))
    # A status that could not be written still says running, but its lock is not held.
    assert runs.state(run) == ("failed" if left else "dead")
    assert checkpoint.load(run.path / "latest.pt")["step"] == (5 if step == 10 else 10)
    (small_disk / "filler").unlink()
    again = tiny_run(folder=small_disk)
    training.train(again)
    assert equal(record(again.path), record(undisturbed.path))
    assert leftovers(again.path) == []


def test_a_folder_that_turns_read_only_ends_in_one_line_and_the_run_goes_on(
    tiny_config, stories, monkeypatch
):
    if os.geteuid():
        pytest.skip("becoming another user needs root, and root itself may write anywhere")
    cfg = tiny_config()
    with tempfile.TemporaryDirectory() as folder:  # pytest's own folder lets nobody in
        data, outputs = (Path(folder) / name for name in ("data", "outputs"))
        shutil.copytree(stories, data)
        outputs.mkdir()
        for path in (Path(folder), data, *data.rglob("*")):
            os.chmod(path, 0o755)
        os.chown(outputs, NOBODY, NOBODY)
        monkeypatch.setenv("OELM_DATA", str(data))
        os.seteuid(NOBODY)
        try:
            run = runs.open_run(cfg, 1, outputs)
            with monkeypatch.context() as patch:
                at_step(patch, 12, lambda: os.chmod(run.path, 0o555))
                with pytest.raises(
                    UserError, match=r"Permission denied; fix the permissions, then the same"
                ):
                    training.train(run)
            # status.json could not be written and still says running; the lock is not held.
            assert runs.read_status(run)["state"] in ("running", "evaluating", "saving")
            assert runs.state(run) == "dead"
            os.chmod(run.path, 0o755)
            run = runs.open_run(cfg, 1, outputs)
            training.train(run)
            assert runs.read_summary(run)["steps"] == cfg.train.max_steps
            assert runs.state(run) == "done"
        finally:
            os.seteuid(0)


def test_a_file_system_that_turns_read_only_ends_in_one_line_and_the_run_goes_on(
    tiny_run, monkeypatch
):
    undisturbed = tiny_run(folder="undisturbed")
    training.train(undisturbed)
    run, mounted = tiny_run(), []

    def remount():
        # Over the folder: its own mount stays busy while the run has its logs open.
        for options in (["--bind", run.path], ["-o", "remount,ro,bind"]):
            done = subprocess.run(["mount", *options, run.path], capture_output=True, text=True)
            if done.returncode:
                pytest.skip(f"mounting needs root: {done.stderr.strip()}")
            mounted.append(options)

    try:
        with monkeypatch.context() as patch:
            at_step(patch, 12, remount)
            with pytest.raises(
                UserError, match=r"Read-only file system; choose a folder on a disk that can"
            ):
                training.train(run)
        assert checkpoint.load(run.path / "latest.pt")["step"] == 10
    finally:
        if mounted:
            subprocess.run(["umount", "-l", run.path], check=True)
    again = tiny_run()
    training.train(again)
    assert equal(record(again.path), record(undisturbed.path))


@pytest.mark.slow
def test_a_disk_that_fills_up_under_the_notebook_ends_in_one_line(oelm, small_disk):
    process = oelm("run", "DEMO-02", *settings(train__max_steps=100000), outputs=small_disk)
    wait_for_step(process, small_disk, 30)
    filler = fill(small_disk, 0)
    out, err = process.communicate(timeout=120)
    assert process.returncode == 2, out + err
    assert re.search(r"^oelm: .*No space left on device; free the disk", err, re.M), err
    assert "Traceback" not in err
    path = only_run(small_disk)
    assert runs.state(path) in ("failed", "dead")
    filler.unlink()
    step = checkpoint.load_latest(path).state["step"]
    assert step >= 5
    process = oelm("run", "DEMO-02", *settings(train__max_steps=100000), outputs=small_disk)
    wait_for_step(process, small_disk, step + 1)
    process.terminate()
    out, err = process.communicate(timeout=120)
    assert (process.returncode, runs.state(path)) == (75, "stopped"), out + err


def wait_for_step(process, outputs, step):
    """Wait until the run's live writer has logged this step."""
    end = time.monotonic() + 300
    while process.poll() is None:
        assert time.monotonic() < end, f"step {step}: not within 300 s"
        for path in runs.find_runs(outputs):
            status = runs.read_status(path) or {}
            if (
                runs.state(path) in ("running", "evaluating", "saving")
                and status.get("step", 0) >= step
            ):
                return path
        time.sleep(0.02)
    raise AssertionError(process.communicate())
