"""Studies: a question declared in one file, trained by an engine, answered on a page.

The names that a notebook or a script needs, each imported when first used; none needs torch.
"""

import importlib
from typing import Any

_FILE_OF = {
    "Plan": "plan",
    "Record": "records",
    "fit_rates": "tuning",
    "judge": "verdicts",
    "load_study": "page",
    "read_plan": "plan",
    "read_records": "records",
    "records_path": "records",
    "study_names": "plan",
}
__all__ = sorted(_FILE_OF)


def __getattr__(name: str) -> Any:
    if name not in _FILE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_FILE_OF[name]}"), name)


def __dir__() -> list[str]:
    return __all__
