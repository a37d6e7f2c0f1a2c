"""The record of a run: folder, metrics, status, time budget."""

from oelm_lib.runs.folder import Run, open_run
from oelm_lib.runs.reading import (
    find_runs,
    read_config,
    read_metrics,
    read_status,
    read_summary,
    read_timing,
    state,
)
from oelm_lib.runs.summary import CorpusFacts

__all__ = [
    "CorpusFacts",
    "Run",
    "find_runs",
    "open_run",
    "read_config",
    "read_metrics",
    "read_status",
    "read_summary",
    "read_timing",
    "state",
]
