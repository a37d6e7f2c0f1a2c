"""The GPT, its attention, its cost: the names a script needs, each imported when first used.

GPT, generate, head_orthogonal and parameter_counts need torch; the cost and the additions do not.
"""

import importlib
from typing import Any

_FILE_OF = {
    "ADDITIONS": "additions",
    "GPT": "gpt",
    "biases_scores": "additions",
    "cost_table": "cost",
    "generate": "generation",
    "head_orthogonal": "init",
    "parameter_counts": "gpt",
    "parameter_numbers": "cost",
    "qk_share": "cost",
    "step_bytes": "cost",
    "step_flops": "cost",
    "unfolded": "additions",
}
__all__ = sorted(_FILE_OF)


def __getattr__(name: str) -> Any:
    if name not in _FILE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_FILE_OF[name]}"), name)


def __dir__() -> list[str]:
    return __all__
