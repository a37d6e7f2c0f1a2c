"""What all pages share: curves of runs, time budgets, tables.

Importing this package loads nothing; a name loads its module at its first use.
"""

from oelm_lib.lazy import lazy_names

__getattr__, __dir__, __all__ = lazy_names(
    __name__,
    {
        "fold": "oelm_lib.markup",
        "loss_curves": "curves",
        "rate_and_gradient": "curves",
        "table": "tables",
        "time_budget": "budget",
    },
)
