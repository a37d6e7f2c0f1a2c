"""Train, compare and report GPTs whose query and key projections stay at their random start.

`import oelm_lib as oelm; oelm.load_config("GPT-02")`; the packages list what they offer in
`__all__`.
"""

from typing import Any

__all__ = ["load_config"]


def __getattr__(name: str) -> Any:
    if name == "load_config":
        from oelm_lib.config import load_config

        return load_config
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
