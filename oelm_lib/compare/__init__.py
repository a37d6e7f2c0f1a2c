"""Comparison of arms: verdicts, tables, cards and figures from run folders.

Importing this package loads nothing; a name loads its module at its first use.
"""

from oelm_lib.lazy import lazy_names

__getattr__, __dir__, __all__ = lazy_names(
    __name__,
    {
        "CurveExplorer": "live",
        "ablation": "ablations",
        "config_diff": "cards",
        "corpora": "inventory",
        "cross_corpus": "verdict",
        "gap_curves": "plots",
        "gap_intervals": "plots",
        "judge": "verdict",
        "load_metrics": "oelm_lib.runs.frames",
        "load_runs": "oelm_lib.runs.frames",
        "matched": "matching",
        "matrix": "inventory",
        "parameters": "inventory",
        "recorded": "oelm_lib.runs.frames",
        "results": "results_table",
        "show_results": "results_table",
        "subtitle": "cards",
        "tokens_to_reach": "plots",
        "verdict_cards": "cards",
        "verdicts": "verdict",
        "warning_list": "cards",
        "warnings": "confounds",
    },
)
