"""Fixtures of the workbench's tests."""

import shutil

import pytest

from oelm_lib.config import PARAMS, paths
from tests.test_params import IDS


def copy_params(folder):
    """Copy params/ into a folder with the project's own experiments; returns the copy."""
    copy = folder / "params"
    shutil.copytree(PARAMS, copy)
    for path in copy.glob("*.yaml"):
        if path.stem not in IDS:
            path.unlink()
    return copy


@pytest.fixture
def params(tmp_path, monkeypatch):
    """A copy of params/ that a test may write."""
    copy = copy_params(tmp_path)
    monkeypatch.setattr(paths, "PARAMS", copy)
    return copy
