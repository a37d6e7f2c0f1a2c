"""The record of a run: folder, metrics, status, time budget."""

from oelm_lib.runs.folder import open_run
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
