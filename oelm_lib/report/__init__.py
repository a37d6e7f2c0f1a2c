"""Pages and the experiment log.

`export` makes a page of an executed notebook, `report` makes the page of what a user names;
`keep.keep` publishes a page in reports/, `journal.journal` writes the experiment log.
"""

import importlib
from typing import Any

_HOMES = {"export": "page", "report": "make"}
__all__ = ["export", "report"]


def __getattr__(name: str) -> Any:
    """Load a public function when it is asked for, so that the package imports fast."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
