"""The name and the colour of an arm, the same in every table, figure and page."""

import hashlib
import math
from collections.abc import Iterable
from typing import Any

LOG_SCALE = 0.45254834
"""qk_scale of the log's N(0, 0.02) at d_model 512."""

# Okabe-Ito hues, the darkest and lightest moved until each keeps a contrast of 3 on white and on near-black.
COLOURS = {"baseline": "#7d7d7d", "OELM-Freeze": "#1b7fc4", "OELM-Random": "#d55e00", "frozen Gaussian": "#009e73"}
OTHERS = ("#c4679b", "#b58900", "#8b6fd0", "#3a9ad9", "#a0724a", "#6f9a2f")

_PLAIN_KEYS = {"vocab_size", "d_model", "num_layers", "num_heads", "d_ff", "max_seq_len", "dropout"}
_QK_KEYS = {"qk_init", "qk_scale", "freeze_q", "freeze_k", "frozen_layers"}


def arm_name(experiment: dict[str, Any], overrides: dict[str, Any] | None = None) -> str:
    """Name what an experiment changes: one of the log's arms, else the title's words after the corpus.

    Args:
        experiment: The mapping of an experiment file, as a run's config.yaml holds it.
        overrides: A run's overrides; those of model.* are part of the name of an arm that the log does not know.
    """
    model = experiment["model"]
    added = any(value for key, value in model.items() if key not in _PLAIN_KEYS | _QK_KEYS)
    frozen = (model["freeze_q"], model["freeze_k"], model["frozen_layers"])
    scale = next((s for s in (LOG_SCALE, 1.0) if math.isclose(model["qk_scale"], s, rel_tol=1e-4)), None)
    if not added and frozen[:2] == (False, False) and (model["qk_init"], scale) == ("normal", LOG_SCALE):
        return "baseline"
    known = {
        ("orthogonal", 1.0): "OELM-Freeze",
        ("normal", LOG_SCALE): "OELM-Random",
        ("normal", 1.0): "frozen Gaussian",
    }
    if not added and frozen == (True, True, "all") and (model["qk_init"], scale) in known:
        return known[model["qk_init"], scale]
    changed = [f"{key.removeprefix('model.')}={value}" for key, value in (overrides or {}).items() if "model." in key]
    return ", ".join([experiment["title"].split(", ", 1)[-1], *changed])


def arm_colours(names: Iterable[str]) -> dict[str, str]:
    """Name -> hex colour; the log's four arms are fixed, others hash to a slot and move on where it is taken."""
    colours = dict(COLOURS)
    for name in sorted(set(names) - set(COLOURS)):
        start = int(hashlib.sha256(name.encode()).hexdigest()[:8], 16)
        slots = [OTHERS[(start + n) % len(OTHERS)] for n in range(len(OTHERS))]
        colours[name] = next((slot for slot in slots if slot not in colours.values()), slots[0])
    return colours
