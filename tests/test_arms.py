import itertools

import numpy as np
import pytest

from oelm_lib import config
from oelm_lib.arms import COLOURS, FAMILY_COLOURS, arm_colour, arm_name, arm_styles, frozen_words

WHITE, NEAR_BLACK = "#ffffff", "#16181b"
# Machado, Oliveira & Fernandes 2009, "A physiologically-based model for simulation of color vision
# deficiency": full deuteranopia and protanopia, on linear RGB.
SIGHTS = {
    "normal": np.eye(3),
    "deuteranopia": np.array(
        [
            [0.367322, 0.860646, -0.227968],
            [0.280085, 0.672501, 0.047413],
            [-0.011820, 0.042940, 0.968881],
        ]
    ),
    "protanopia": np.array(
        [
            [0.152286, 1.052583, -0.204868],
            [0.114503, 0.786281, 0.099216],
            [-0.003882, -0.048116, 1.051998],
        ]
    ),
}
STAGE_1 = """Gaussian|Gaussian at the log's scale|K frozen|Q frozen|RoPE|RoPE, Q frozen
RoPE, bias and gains|RoPE, bias and gains, delta r=1|RoPE, bias and gains, delta r=4
RoPE, cheap stack|RoPE, cheap stack, delta r=4|RoPE, delta r=1|RoPE, delta r=4
RoPE, delta r=4, faster B|RoPE, delta r=4, log's scale|RoPE, delta r=4, own rate
RoPE, delta r=4, scale 0.1|RoPE, delta r=4, slow A, fast B|T5 bias|T5 bias, bias and gains
T5 bias, delta r=4|T5 bias, scale 0.001|baseline|baseline + RoPE|baseline + RoPE, bias and gains
baseline + RoPE, cheap stack|baseline + T5 bias|baseline + T5 bias, bias and gains
baseline + key convolution|core|delta r=1|delta r=4|frozen from step 150|key convolution
layers 1-3 frozen|orthogonal""".replace("\n", "|").split("|")


def linear(colour):
    rgb = np.array([int(colour[n : n + 2], 16) for n in (1, 3, 5)]) / 255
    return np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)


def contrast(one, two):
    """Contrast ratio of WCAG 2.2."""
    high, low = sorted((linear(c) @ [0.2126, 0.7152, 0.0722] for c in (one, two)), reverse=True)
    return (high + 0.05) / (low + 0.05)


def oklab(rgb):
    """Ottosson 2020, "A perceptual color space for image processing", times 100."""
    to_lms = np.array(
        [
            [0.4122214708, 0.5363325363, 0.0514459929],
            [0.2119034982, 0.6806995451, 0.1073969566],
            [0.0883024619, 0.2817188376, 0.6299787005],
        ]
    )
    to_lab = np.array(
        [
            [0.2104542553, 0.7936177850, -0.0040720468],
            [1.9779984951, -2.4285922050, 0.4505937099],
            [0.0259040371, 0.7827717662, -0.8086757660],
        ]
    )
    return 100 * to_lab @ np.cbrt(to_lms @ np.clip(rgb, 0, 1))


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
    assert arm_name(config.load_config(exp)) == name


@pytest.mark.parametrize(
    "change", ["delta_rank=4", "position=rope", "qk_gain=true", "freeze_until=10"]
)
def test_an_addition_makes_another_arm(change):
    cfg = config.load_config("DEMO-02", f"model.{change}")
    assert arm_name(cfg) not in ("baseline", "OELM-Freeze")
    assert change.partition("=")[0] in arm_name(cfg)


@pytest.mark.parametrize("colour", [*COLOURS.values(), *FAMILY_COLOURS])
@pytest.mark.parametrize("ground", [WHITE, NEAR_BLACK])
def test_every_colour_stands_out_from_the_page(colour, ground):
    assert contrast(colour, ground) >= 3


@pytest.mark.parametrize("sight", SIGHTS)
def test_the_logs_arms_differ_in_colour_for_colour_blind_readers(sight):
    seen = [oklab(SIGHTS[sight] @ linear(colour)) for colour in COLOURS.values()]
    assert min(np.linalg.norm(a - b) for a, b in itertools.combinations(seen, 2)) > 10


def test_the_colour_of_an_arm_does_not_depend_on_its_company():
    alone = {name: arm_styles([name])[name].colour for name in STAGE_1}
    together = arm_styles(STAGE_1)
    assert {name: style.colour for name, style in together.items()} == alone
    assert arm_colour("OELM-Freeze") == COLOURS["OELM-Freeze"]


def test_36_arms_in_one_figure_all_look_different():
    styles = arm_styles(STAGE_1)
    assert len(styles) == len(set(styles.values())) == 36


def test_more_arms_of_one_colour_than_there_are_looks_are_drawn():
    """The 51st arm of a sweep ended every figure."""
    names = [f"baseline, Q/K rows of norm {number}" for number in range(60)]
    assert set(arm_styles(names)) == set(names)
    assert len(set(arm_styles(names[:50]).values())) == 50


def test_arms_with_one_addition_share_a_colour_and_trained_arms_have_open_symbols():
    styles = arm_styles(STAGE_1)
    family = [styles[name] for name in STAGE_1 if "T5 bias" in name]
    assert len({style.colour for style in family}) == 1
    assert {name for name, style in styles.items() if style.symbol.endswith("-open")} == {
        name for name in STAGE_1 if name.startswith("baseline +")
    }


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        ({}, "W_q and W_k frozen at orthogonal rows of norm 1"),
        ({"model.freeze_k": False}, "W_q frozen at orthogonal rows of norm 1"),
        (
            {"model.frozen_layers": [0], "model.qk_init": "normal"},
            "W_q and W_k frozen at Gaussian rows of expected norm 1 in layer 0",
        ),
        (
            {"model.freeze_from": 100},
            "W_q and W_k frozen at orthogonal rows of norm 1, from step 100 on",
        ),
        ({"model.freeze_q": False, "model.freeze_k": False}, ""),
        ({"model.frozen_layers": []}, ""),
    ],
)
def test_what_is_frozen_is_said_in_words(overrides, words):
    assert frozen_words(config.load_config("DEMO-02", overrides).model) == words
