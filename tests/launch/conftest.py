import os
import signal
import subprocess
import sys
import time

import psutil
import pytest

from tests.conftest import TINY_RUN


@pytest.fixture
def tiny_env(stories, tmp_path, monkeypatch):
    """Folders of this test, for this process and those it starts; returns the outputs folder."""
    monkeypatch.setenv("OELM_DATA", str(stories))
    monkeypatch.setenv("OELM_OUTPUTS", str(tmp_path / "outputs"))
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    return tmp_path / "outputs"


@pytest.fixture
def tiny():
    """A function from changes to the overrides of a run that trains in a second."""
    return lambda **changes: (
        TINY_RUN | {key.replace("__", "."): value for key, value in changes.items()}
    )


@pytest.fixture
def start_oelm(tmp_path):
    """A function that starts `oelm ARGS...` with overrides in its own process group.

    What is left of it at the end is killed.
    """
    started = []

    def start(*args, overrides=(), log="oelm.log"):
        sets = [
            part for key, value in dict(overrides).items() for part in ("--set", f"{key}={value}")
        ]
        with open(tmp_path / log, "w") as file:
            command = [sys.executable, "-u", "-m", "oelm_lib.cli", *args, *sets]
            process = subprocess.Popen(command, stdout=file, stderr=file, start_new_session=True)
        started.append(process)
        return process

    yield start
    for process in started:
        left = descendants(process.pid)
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        for child in left:
            child.kill()


def descendants(pid):
    """Everything a process has started, directly or not, that still lives."""
    try:
        return psutil.Process(pid).children(recursive=True)
    except psutil.NoSuchProcess:
        return []


def wait_for(condition, what, seconds=120, process=None):
    """Wait until condition() is true, and no longer than a process runs; returns its value."""
    end = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < end, f"{what}: not within {seconds} s"
        assert process is None or process.poll() is None, (what, process.communicate())
        time.sleep(0.1)
    return value
