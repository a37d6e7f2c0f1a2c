"""The tool that measures what a run takes beyond its steps: its commands and its rows."""

import subprocess
import sys

import pytest

from oelm_lib.config import overrides_text
from tests.bench import around
from tests.conftest import TINY_RUN

pytestmark = pytest.mark.slow


def test_what_a_run_imports_exists():
    code = "\n".join(around.IMPORTS.values())
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_the_table_has_a_run_its_imports_and_its_time_budget(stories, monkeypatch):
    monkeypatch.setenv("OELM_DATA", str(stories))
    monkeypatch.setattr(around, "OVERRIDES", overrides_text(TINY_RUN | {"train.max_steps": 1}))
    monkeypatch.setattr(around, "IMPORTS", {"Python": "pass"})
    table = around.around_a_run().set_index("what")
    measured = table["cpu_seconds"].dropna()
    assert measured.index.tolist() == ["oelm run of one step", "import: Python"]
    assert (measured > 0).all()
    assert table.loc["time budget: page", "wall_seconds"] > 0
