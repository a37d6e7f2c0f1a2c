"""The name and the colour of an arm, the same in every table, figure and page."""

import hashlib
import math
from collections.abc import Iterable
from typing import Any

from oelm_lib.config import SIZES

LOG_QK_SCALE = 0.45254834
"""qk_scale of the log's N(0, 0.02) at d_model 512."""
# Okabe-Ito hues, the darkest and lightest moved until each keeps a contrast of 3 on white and on near-black.
COLOURS = {
    "baseline": "#7d7d7d",
    "OELM-Freeze": "#1b7fc4",
    "OELM-Random": "#d55e00",
    "frozen Gaussian": "#009e73",
}
STUDY = {
    "orthogonal": "OELM-Freeze",
    "Gaussian at the log's scale": "OELM-Random",
    "Gaussian": "frozen Gaussian",
}
"""What the study calls the same arms."""
OTHERS = ("#c4679b", "#b58900", "#8b6fd0", "#b23ccf", "#a0724a", "#6f9a2f")
FROZEN = {
    ("orthogonal", 1.0): "OELM-Freeze",
    ("normal", LOG_QK_SCALE): "OELM-Random",
    ("normal", 1.0): "frozen Gaussian",
}
KNOWN_KEYS = {*SIZES, "qk_init", "qk_scale", "freeze_q", "freeze_k", "frozen_layers"}
OFF = (False, 0, None, "learned")
"""Values of the other model keys where nothing is added."""


def arm_name(experiment: dict[str, Any], overrides: dict[str, Any] | None = None) -> str:
    """Name what an experiment changes: one of the log's arms, else the title's words after the corpus.

    Args:
        experiment: The mapping of an experiment file.
        overrides: Those of model.* become part of the name of an arm that the log does not know.
    """
    model = experiment["model"]
    if all(value in OFF for key, value in model.items() if key not in KNOWN_KEYS):
        frozen = (model["freeze_q"], model["freeze_k"])
        scale = next(
            (s for s in (LOG_QK_SCALE, 1.0) if math.isclose(model["qk_scale"], s, rel_tol=1e-4)),
            None,
        )
        init = (model["qk_init"], scale)
        if frozen == (False, False) and init == ("normal", LOG_QK_SCALE):
            return "baseline"
        if frozen == (True, True) and model["frozen_layers"] == "all" and init in FROZEN:
            return FROZEN[init]
    changed = [
        f"{key.removeprefix('model.')}={value}"
        for key, value in (overrides or {}).items()
        if "model." in key
    ]
    return ", ".join([experiment["title"].split(", ", 1)[-1], *changed])


def arm_colours(names: Iterable[str]) -> dict[str, str]:
    """Name -> hex colour: the log's four arms are fixed, another hashes to a slot and moves on where it is taken."""
    names = set(names)
    colours = COLOURS | {name: COLOURS[same] for name, same in STUDY.items() if name in names}
    for name in sorted(names - set(colours)):
        start = int(hashlib.sha256(name.encode()).hexdigest()[:8], 16)
        slots = [OTHERS[(start + n) % len(OTHERS)] for n in range(len(OTHERS))]
        colours[name] = next((slot for slot in slots if slot not in colours.values()), slots[0])
    return colours
