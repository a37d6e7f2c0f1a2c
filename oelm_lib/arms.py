"""The name and the look of an arm, the same in every table, figure and page."""

import hashlib
import math
import re
from collections.abc import Iterable
from typing import NamedTuple

from oelm_lib.config import Experiment, ModelConfig, change_words
from oelm_lib.units import significant

LOG_QK_SCALE = 0.02 * 512**0.5
"""qk_scale of the log's arms: entries N(0, 0.02) at d_model 512."""
COLOURS = {
    "baseline": "#6a6d70",
    "OELM-Freeze": "#1b7fc4",
    "OELM-Random": "#d55e00",
    "frozen Gaussian": "#00a67d",
}
"""Okabe-Ito hues with a contrast of at least 3 on white and on near-black."""
FAMILY_COLOURS = ("#ab68fe", "#d20349", "#c442a8", "#5f51e5", "#ad86b8", "#b58900")
"""Colours of all other families, with the same contrast."""
SYMBOLS = (
    "circle",
    "square",
    "diamond",
    "triangle-up",
    "cross",
    "triangle-down",
    "x",
    "star",
    "hourglass",
    "bowtie",
)
LOG_SYMBOLS = dict(zip(COLOURS, SYMBOLS, strict=False))
DASHES = ("solid", "dash", "dot", "dashdot", "longdash")
TRAINED = re.compile(r"^(?:baseline|trained)\b(?: \+ )?")
FROZEN = {
    ("orthogonal", 1.0): "OELM-Freeze",
    ("normal", LOG_QK_SCALE): "OELM-Random",
    ("normal", 1.0): "frozen Gaussian",
}
OFF = {
    key: field.default
    for key, field in ModelConfig.model_fields.items()
    if not field.is_required() and key != "frozen_layers"
}
"""Key of `model` that may be left out, but frozen_layers -> its default, which adds nothing."""


class ArmStyle(NamedTuple):
    """Look of an arm in figures: hex colour of its family, plotly's dash and symbol."""

    colour: str
    dash: str
    symbol: str


def arm_name(experiment: Experiment) -> str:
    """Return what an experiment changes: an arm of the log, else the title after the corpus.

    Overrides of model.* become part of the name where the log does not know the arm.
    """
    if name := log_name(experiment.model):
        return name
    overrides = experiment.overrides.items()
    changed = {key: value for key, value in overrides if key.startswith("model.")}
    return ", ".join([experiment.title.split(", ", 1)[-1], *change_words(changed)])


def log_name(model: ModelConfig) -> str | None:
    """Return the name of an arm of the log or of the frozen Gaussian; None for any other."""
    if any(getattr(model, key) != off for key, off in OFF.items()):
        return None

    def starts_as(init: str, scale: float) -> bool:
        return model.qk_init == init and math.isclose(model.qk_scale, scale, rel_tol=1e-4)

    if not (model.freeze_q or model.freeze_k):
        return "baseline" if starts_as("normal", LOG_QK_SCALE) else None
    if not (model.freeze_q and model.freeze_k) or model.frozen_layers != "all":
        return None
    return next((name for start, name in FROZEN.items() if starts_as(*start)), None)


def frozen_projections(model: ModelConfig) -> str:
    """Return which projections a model freezes: `W_q and W_k`, one of them, or ""."""
    if not model.is_frozen:
        return ""
    sides = (("W_q", model.freeze_q), ("W_k", model.freeze_k))
    return " and ".join(name for name, is_frozen in sides if is_frozen)


def frozen_words(model: ModelConfig) -> str:
    """Return what a model freezes, in words; "" where nothing is frozen.

    `W_q and W_k frozen at orthogonal rows of norm 1`.
    """
    names = frozen_projections(model)
    if not names:
        return ""
    rows = "orthogonal rows of" if model.qk_init == "orthogonal" else "Gaussian rows of expected"
    words = f"{names} frozen at {rows} norm {significant(model.qk_scale, 2)}"
    if model.frozen_layers != "all":
        words += f" in layer {', '.join(map(str, model.frozen_layers))}"
    if model.freeze_from or model.freeze_until:
        until = f" to {model.freeze_until}" if model.freeze_until else " on"
        words += f", from step {model.freeze_from}{until}"
    return words


def arm_colour(name: str) -> str:
    """Return the hex colour of an arm, which depends on its name alone.

    The log's four arms have their own; any other has the colour of its family: what it adds first,
    such as "T5 bias" in "baseline + T5 bias, delta r=4".
    """
    return COLOURS.get(name) or FAMILY_COLOURS[_hash(_family(name)) % len(FAMILY_COLOURS)]


def arm_styles(names: Iterable[str]) -> dict[str, ArmStyle]:
    """Return a look for each arm of a figure, no two alike for up to 50 arms of a colour.

    The colour is arm_colour. A dashed line with an open symbol is a trained arm with an addition.
    Symbol and dash follow from the name too; where arms of one family would look alike, the later
    one in alphabetical order takes the next free symbol, then the next dash.
    """
    styles: dict[str, ArmStyle] = {}
    for name in sorted(set(names), key=lambda name: (name not in COLOURS, name)):
        looks = [ArmStyle(arm_colour(name), *look) for look in _looks(name)]
        free = (look for look in looks if look not in styles.values())
        styles[name] = next(free, looks[0])
    return styles


def _looks(name: str) -> Iterable[tuple[str, str]]:
    """Yield the dashes and symbols that an arm may take, the preferred one first."""
    if name in COLOURS:
        yield "solid", LOG_SYMBOLS[name]
    start, trained = _hash(name), bool(TRAINED.match(name))
    for turn in range(len(DASHES)):
        dash = DASHES[(turn + trained) % len(DASHES)]
        for step in range(len(SYMBOLS)):
            symbol = SYMBOLS[(start + step) % len(SYMBOLS)]
            yield dash, f"{symbol}-open" if trained else symbol


def _family(name: str) -> str:
    """Return what an arm adds first, without its numbers."""
    added = TRAINED.sub("", name).removeprefix("OELM-Freeze + ").removeprefix("frozen + ")
    return re.sub(r"[\d.=-]+", "", added.split(",")[0]).strip()


def _hash(text: str) -> int:
    return int(hashlib.sha256(text.encode()).hexdigest()[:8], 16)
