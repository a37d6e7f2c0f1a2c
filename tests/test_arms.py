import itertools
import math

import pytest

from oelm_lib import config
from oelm_lib.arms import COLOURS, OTHERS, arm_name


@pytest.mark.parametrize(
    ("exp", "name"),
    [
        ("GPT-01", "baseline"),
        ("GPT-02", "OELM-Freeze"),
        ("GPT-03", "OELM-Random"),
        ("DEMO-04", "frozen Gaussian"),
    ],
)
def test_the_logs_arms_have_their_names_at_any_size(exp, name):
    assert arm_name(config.load_config(exp).to_dict()) == name


@pytest.mark.parametrize(
    "change", ["delta_rank=4", "position=rope", "qk_gain=true", "freeze_until=10"]
)
def test_an_addition_makes_another_arm(change):
    cfg = config.load_config("DEMO-02", f"model.{change}")
    assert arm_name(cfg.to_dict(), cfg.overrides) not in ("baseline", "OELM-Freeze")
    assert change.partition("=")[0] in arm_name(cfg.to_dict(), cfg.overrides)


def test_no_two_colours_are_nearly_the_same():
    points = [
        [int(colour[n : n + 2], 16) for n in (1, 3, 5)] for colour in (*COLOURS.values(), *OTHERS)
    ]
    assert min(math.dist(one, two) for one, two in itertools.combinations(points, 2)) > 50
