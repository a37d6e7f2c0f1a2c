"""Training: the loop, its state and checkpoints, and what is done with a trained model.

The names below are loaded when they are first used, so that importing the package stays light.
"""

import importlib

_SOURCES = {
    "train": "loop",
    "Trained": "trained",
    "open_trained": "trained",
    "export_model": "export",
    "score_test_split": "confirm",
    "run_trial": "trial",
    "replay_step": "trial",
}
__all__ = (
    "Trained",
    "export_model",
    "open_trained",
    "replay_step",
    "run_trial",
    "score_test_split",
    "train",
)


def __getattr__(name: str):
    """Load a public name from its module."""
    if name not in _SOURCES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_SOURCES[name]}"), name)
