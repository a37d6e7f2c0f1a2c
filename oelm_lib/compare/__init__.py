"""Comparison of arms: verdicts, tables, cards and figures from run folders.

Importing this package loads nothing; a name loads its module at its first use.
"""

from oelm_lib.lazy import lazy_names

__getattr__, __dir__, __all__ = lazy_names(
    __name__,
    {
        "CurveExplorer": "curve_explorer",
        "ablation": "matching",
        "config_diff": "confounds",
        "corpora": "run_tables",
        "cross_corpus": "verdict",
        "gap_curves": "plots",
        "gap_intervals": "plots",
        "judge": "verdict",
        "load_metrics": "oelm_lib.runs.frames",
        "load_runs": "oelm_lib.runs.frames",
        "matched": "matching",
        "next_steps": "open_verdicts",
        "parameters": "run_tables",
        "recorded": "oelm_lib.runs.frames",
        "results": "results_table",
        "run_states": "run_tables",
        "show_recorded": "results_table",
        "show_results": "results_table",
        "subtitle": "first_screen",
        "tokens_to_reach": "plots",
        "verdict_cards": "first_screen",
        "verdicts": "verdict",
        "warning_list": "first_screen",
        "warnings": "confounds",
    },
)
