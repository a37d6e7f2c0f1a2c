"""Many runs: queue, GPUs, Slurm, the engine of studies. The interface is the `oelm` command.

A script may call what `oelm run ID` and `oelm study NAME` call; each name is imported when it is
first used. Both return an exit code.
"""

import importlib
from typing import Any

_FILE_OF = {"run_experiment": "notebook", "run_study": "studies"}
__all__ = sorted(_FILE_OF)


def __getattr__(name: str) -> Any:
    if name not in _FILE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_FILE_OF[name]}"), name)


def __dir__() -> list[str]:
    return __all__
