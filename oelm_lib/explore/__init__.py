"""Probes of trained models: where heads look, what they are for, on which tokens an arm loses.

`measures` are functions of arrays, `attention`, `windows` and `probes` take a run to numbers,
`sentences`, `tables`, `figures` and `maps` show them, `live` is the widget for JupyterLab.
"""

import importlib
from typing import Any

_HOMES = {
    "open_arms": "arms",
    "one_seed_each": "arms",
    "findings": "sentences",
    "attention_grid": "maps",
    "HeadExplorer": "live",
}
__all__ = ["HeadExplorer", "attention_grid", "findings", "one_seed_each", "open_arms"]


def __getattr__(name: str) -> Any:
    """Load a public name when it is asked for: models need torch, which takes seconds."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
