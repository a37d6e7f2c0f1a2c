"""Fixtures of the workbench's tests."""

import sys

import pytest

from oelm_lib.config import paths
from oelm_lib.workbench import launches
from tests.project_params import copy_params


@pytest.fixture
def params(tmp_path, monkeypatch):
    """A copy of params/ that a test may write."""
    copy = copy_params(tmp_path)
    monkeypatch.setattr(paths, "PARAMS", copy)
    return copy


@pytest.fixture
def sleepers(tmp_path, monkeypatch):
    """Processes of the commands that are started: they sleep until they are told to stop."""
    script = tmp_path / "sleep.sh"
    script.write_text("#!/bin/sh\nexec sleep 60\n")
    script.chmod(0o755)
    processes = []
    monkeypatch.setattr(sys, "executable", str(script))
    monkeypatch.setattr(launches, "_started", processes)
    yield processes
    for process in processes:
        process.kill()
        process.wait()


@pytest.fixture
def outputs(tmp_path, params):
    folder = tmp_path / "outputs"
    folder.mkdir()
    return folder
