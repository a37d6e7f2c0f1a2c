import math

import pytest

from oelm_lib.runs.frames import load_runs, recorded
from oelm_lib.runs.timing import PHASES
from oelm_lib.view.budget import PARTS, time_budget, time_budget_table
from tests import runs_factory

OWN = [part for part in PARTS if part != "page"]


def test_parts_sum_to_the_wall_time_and_the_page_comes_after(tmp_path):
    runs_factory.make_demo(tmp_path, seeds=(42,))
    runs = load_runs(outputs=tmp_path)
    for timing in runs["timing"]:
        timing["budget"]["page"] = 5.0
    table = time_budget_table(runs)
    assert table[OWN].sum(axis=1).tolist() == pytest.approx(table["wall_seconds"].tolist())
    assert table["page"].tolist() == [5.0] * 4
    bars = {bar.name: sum(bar.x) for bar in time_budget(runs).data}
    assert sum(bars.values()) - bars["page"] == pytest.approx(table["wall_seconds"].sum(), rel=1e-4)


def test_recorded_times_are_split_as_far_as_the_log_tells():
    table = time_budget_table(recorded()).set_index("id")
    assert table.loc["GPT-01", "evaluation"] == 7269
    assert table.loc["GPT-01", list(PARTS)].sum() == pytest.approx(16287.72)
    assert math.isnan(table.loc["GPT-04", "evaluation"])


def test_every_phase_that_a_run_measures_is_a_part():
    assert set(PHASES) <= set(PARTS)
