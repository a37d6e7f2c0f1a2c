"""The record of a run: folder, lock, metrics, status, result.

Written by a run in progress: folder.py (opens and locks the folder; corpus_fit.py checks the
corpus), provenance.py (sessions), metrics.py (rows and log), status.py, timing.py. For readers:
find.py (folders by name), reading.py (one run), frames.py (all runs as a data frame), overview.py
(all runs, from status and summary alone), logs.py, export_metrics.py (one run for other tools).

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
