"""The button that exports metrics."""

import pytest

from oelm_lib.errors import UserError
from oelm_lib.runs.names import run_name
from oelm_lib.workbench import page_actions
from tests import runs_factory


def test_an_export_leaves_out_runs_without_metrics(tmp_path, sleepers):
    run, waiting = runs_factory.make_run(tmp_path, "DEMO-02", 1), tmp_path / "DEMO-02_x" / "seed5"
    waiting.mkdir(parents=True)
    with pytest.raises(UserError, match="has metrics yet; wait for its first steps"):
        page_actions.export_runs([waiting], tmp_path)
    line, left_out = page_actions.export_runs([waiting, run], tmp_path).split("\n")
    assert str(run) in line and str(waiting) not in line
    assert left_out == f"Left out, without metrics yet: {run_name(waiting)}."
