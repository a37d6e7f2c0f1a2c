"""Comparison of arms: verdicts, tables, cards and figures from run folders.

Importing this package loads nothing; a name loads its module at its first use.
"""

from importlib import import_module
from typing import Any

_MODULES = {
    "CurveExplorer": "oelm_lib.compare.live",
    "ablation": "oelm_lib.compare.ablations",
    "config_diff": "oelm_lib.compare.cards",
    "corpora": "oelm_lib.compare.inventory",
    "cross_corpus": "oelm_lib.compare.verdict",
    "gap_curves": "oelm_lib.compare.plots",
    "gap_intervals": "oelm_lib.compare.plots",
    "load_metrics": "oelm_lib.runs.frames",
    "load_runs": "oelm_lib.runs.frames",
    "matched": "oelm_lib.compare.matching",
    "matrix": "oelm_lib.compare.inventory",
    "parameters": "oelm_lib.compare.inventory",
    "recorded": "oelm_lib.runs.frames",
    "results": "oelm_lib.compare.results_table",
    "show_results": "oelm_lib.compare.results_table",
    "tokens_to_reach": "oelm_lib.compare.plots",
    "verdict_cards": "oelm_lib.compare.cards",
    "verdicts": "oelm_lib.compare.verdict",
    "warning_list": "oelm_lib.compare.cards",
    "warnings": "oelm_lib.compare.confounds",
}
__all__ = list(_MODULES)


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_MODULES[name]), name)
