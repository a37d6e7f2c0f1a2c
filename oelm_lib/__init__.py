"""Train, compare and report GPTs whose query and key projections stay at their random start.

`import oelm_lib as oelm; oelm.load_config("GPT-02")`; the packages, such as `oelm.compare`, list
what they offer in `__all__`.
"""

from importlib import import_module
from typing import Any

from oelm_lib.lazy import lazy_names

PACKAGES = (
    "bench", "compare", "config", "data", "explore", "launch", "model", "report", "run_page",
    "runs", "stats", "study", "training", "view", "workbench",
)  # fmt: skip
"""Loaded when named; `oelm.` and the tab key list them."""

_public_name, _, __all__ = lazy_names(__name__, {"load_config": "config"})


def __getattr__(name: str) -> Any:
    return import_module(f"oelm_lib.{name}") if name in PACKAGES else _public_name(name)


def __dir__() -> list[str]:
    return [*PACKAGES, *__all__]
