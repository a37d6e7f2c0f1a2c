"""Fixtures of the workbench's tests."""

import pytest

from oelm_lib.config import paths
from tests.project_params import copy_params


@pytest.fixture
def params(tmp_path, monkeypatch):
    """A copy of params/ that a test may write."""
    copy = copy_params(tmp_path)
    monkeypatch.setattr(paths, "PARAMS", copy)
    return copy
