"""What all pages share: curves of runs, time budgets, tables.

Importing this package loads nothing; a name loads its module at its first use.
"""

from importlib import import_module
from typing import Any

_MODULES = {
    "fold": "tables",
    "loss_curves": "curves",
    "rate_and_gradient": "curves",
    "table": "tables",
    "time_budget": "budget",
}
__all__ = ["fold", "loss_curves", "rate_and_gradient", "table", "time_budget"]


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
