"""The record of a run: folder, lock, metrics, status, result.

Each name is imported when it is first used. Nothing here needs torch.
"""

import importlib
from typing import Any

_FILE_OF = {
    "CorpusFacts": "summary",
    "LockLost": "lock",
    "Run": "folder",
    "RunLock": "lock",
    "Summary": "summary",
    "find_run": "logs",
    "find_runs": "reading",
    "load_folders": "frames",
    "load_metrics": "frames",
    "load_runs": "frames",
    "log_lines": "logs",
    "open_run": "folder",
    "read_config": "reading",
    "read_documents": "documents",
    "read_logit_std": "reading",
    "read_metrics": "reading",
    "read_status": "reading",
    "read_summary": "reading",
    "read_timing": "reading",
    "sessions": "provenance",
    "state": "reading",
}
__all__ = sorted(_FILE_OF)


def __getattr__(name: str) -> Any:
    if name not in _FILE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_FILE_OF[name]}"), name)


def __dir__() -> list[str]:
    return __all__
