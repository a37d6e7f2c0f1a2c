"""Fixtures of the workbench's tests."""

import shutil

import pytest

from oelm_lib.config import PARAMS, paths
from tests.test_params import IDS


@pytest.fixture
def params(tmp_path, monkeypatch):
    """A copy of params/ with the project's experiments, that a test may write."""
    copy = tmp_path / "params"
    shutil.copytree(PARAMS, copy)
    for path in copy.glob("*.yaml"):
        if path.stem not in IDS:
            path.unlink()
    monkeypatch.setattr(paths, "PARAMS", copy)
    return copy
