"""Training: the loop, its state and checkpoints, and what is done with a trained model.

Each name is imported when it is first used, so that importing the package stays light.
"""

import importlib
from typing import Any

_FILE_OF = {
    "Trained": "trained",
    "export_model": "export",
    "open_trained": "trained",
    "replay_step": "trial",
    "run_trial": "trial",
    "score_test_split": "confirm",
    "train": "loop",
}
__all__ = sorted(_FILE_OF)


def __getattr__(name: str) -> Any:
    if name not in _FILE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_FILE_OF[name]}"), name)


def __dir__() -> list[str]:
    return __all__
