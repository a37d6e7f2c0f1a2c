"""docs/speed.md states what the cost model computes."""

from oelm_lib.config import ROOT, load_config
from oelm_lib.hardware import GPU_FLOPS
from oelm_lib.model.cost import step_flops, training_hours

ROWS = {"GPT-01": "GPT-01..03", "GPT-04": "GPT-04, 05", "GPT-06": "GPT-06, 07"}
ALIKE = {"GPT-02": "GPT-01", "GPT-03": "GPT-01", "GPT-05": "GPT-04", "GPT-07": "GPT-06"}
RATES = [
    (0.5e12 * 0.8, 0.5e12 * 0.4),  # laptop CPU, fp32 on about eight cores
    # half precision, compiled; a column for each peak
    *((peak * 0.4, peak * 0.2) for peak in dict.fromkeys(GPU_FLOPS.values())),
]
"""Highest and lowest FLOP/s that training steps may reach on each device of the table."""


def range_text(low, high):
    return "–".join(f"{float(f'{value:.2g}'):,.10g}" for value in (low, high))


def test_the_table_of_expected_hours_is_that_of_the_cost_model():
    lines = (ROOT / "docs" / "speed.md").read_text().splitlines()
    for exp, name in ROWS.items():
        cfg = load_config(exp)
        hours = [range_text(*(training_hours(cfg, rate) for rate in both)) for both in RATES]
        assert f"| {name} | {' h | '.join(hours)} h |" in lines
    cfg = load_config("GPT-01")
    token_flops = step_flops(cfg.model, cfg.train.batch_size)["fast"] / cfg.step_tokens
    rates = [range_text(low / token_flops / 1e3, high / token_flops / 1e3) for high, low in RATES]
    assert f"| thousand tokens/s | {' | '.join(rates)} |" in lines


def test_frozen_arms_take_at_most_three_percent_less():
    for frozen, baseline in ALIKE.items():
        first, second = (training_hours(load_config(exp), 1e12) for exp in (frozen, baseline))
        assert 0.97 <= first / second <= 1.0
