"""docs/speed.md states what the cost model computes."""

from oelm_lib.bench.expectations import DEVICES, expected_hours, expected_rates
from oelm_lib.config import ROOT

ROWS = {"GPT-01": "GPT-01..03", "GPT-04": "GPT-04, 05", "GPT-06": "GPT-06, 07"}
ALIKE = {"GPT-02": "GPT-01", "GPT-03": "GPT-01", "GPT-05": "GPT-04", "GPT-07": "GPT-06"}


def test_the_table_of_expected_hours_is_that_of_the_cost_model():
    lines = (ROOT / "docs" / "speed.md").read_text().splitlines()
    for row in expected_hours(list(ROWS)).to_dict("records"):
        cells = [ROWS[row["experiment"]], *(f"{row[device.name]} h" for device in DEVICES)]
        assert f"| {' | '.join(cells)} | {row['measured']} |" in lines
    rates = " | ".join(expected_rates("GPT-01").values())
    assert f"| thousand tokens/s | {rates} | not measured |" in lines


def test_frozen_arms_take_at_most_three_percent_less():
    from oelm_lib.config import load_config
    from oelm_lib.model.cost import step_flops

    for frozen, baseline in ALIKE.items():
        first, second = (
            step_flops(load_config(exp).model, 8)["fast"] * load_config(exp).train.max_steps
            for exp in (frozen, baseline)
        )
        assert 0.97 <= first / second <= 1.0
