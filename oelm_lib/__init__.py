"""Train, compare and report GPTs whose query and key projections stay at their random start.

`import oelm_lib as oelm; oelm.load_config("GPT-02")`; the packages, such as `oelm.compare`, list
what they offer in `__all__`.
"""

from importlib import import_module
from typing import Any

PACKAGES = (
    "bench", "compare", "config", "data", "explore", "launch", "model", "report", "run_page",
    "runs", "stats", "study", "training", "view", "workbench",
)  # fmt: skip
"""Loaded when named; `oelm.` and the tab key list them."""

__all__ = ["load_config"]


def __getattr__(name: str) -> Any:
    if name in PACKAGES:
        return import_module(f"oelm_lib.{name}")
    if name == "load_config":
        return import_module("oelm_lib.config").load_config
    names = ", ".join(__dir__())
    raise AttributeError(f"module 'oelm_lib' has no attribute {name!r}; it has {names}")


def __dir__() -> list[str]:
    return [*PACKAGES, *__all__]
