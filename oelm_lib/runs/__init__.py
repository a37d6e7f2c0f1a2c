"""The record of a run: folder, lock, metrics, status, result.

A run in progress writes: folder opens it under a lock where it fits its corpus (corpus_fit), and
records its sessions (provenance), rows (metrics), status and timing. All others find the folders
(find) and read: reading (one run), frames (all runs as a data frame), overview (all runs from their
status alone), logs, export_metrics (one run for other tools).

Each name is imported when it is first used. Nothing here needs torch.
"""

from oelm_lib.lazy import lazy_names

__getattr__, __dir__, __all__ = lazy_names(
    __name__,
    {
        "LockLost": "lock",
        "Run": "folder",
        "RunInUse": "lock",
        "RunLock": "lock",
        "find_run": "find",
        "find_runs": "find",
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
    },
)
