"""Probes of trained models: where heads look, what they are for, on which tokens an arm loses.

`measures` are functions of arrays, `attention`, `windows` and `probes` take a run to numbers,
`sentences`, `tables`, `figures` and `maps` show them, `head_explorer` is the widget for JupyterLab.
`arms.runs_by_arm` puts the runs of an arm together.
"""

from oelm_lib.lazy import lazy_names

__getattr__, __dir__, __all__ = lazy_names(
    __name__,
    {
        "open_arms": "arms",
        "one_seed_each": "arms",
        "findings": "sentences",
        "attention_grid": "maps",
        "HeadExplorer": "head_explorer",
    },
)
