"""Speed of the training step against other implementations and the machine's limit.

Each name is imported when it is first used; only the measurements need torch.
"""

import importlib
from typing import Any

_FILE_OF = {
    "bench": "cpu",
    "bench_gpu": "gpu",
    "expected_hours": "expectations",
    "expected_rates": "expectations",
}
__all__ = sorted(_FILE_OF)


def __getattr__(name: str) -> Any:
    if name not in _FILE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_FILE_OF[name]}"), name)


def __dir__() -> list[str]:
    return __all__
