"""Fixtures of the workbench's tests."""

import shutil

import pytest

from oelm_lib.config import PARAMS, paths


@pytest.fixture
def params(tmp_path, monkeypatch):
    """A copy of params/ that a test may write."""
    copy = tmp_path / "params"
    shutil.copytree(PARAMS, copy)
    monkeypatch.setattr(paths, "PARAMS", copy)
    return copy
