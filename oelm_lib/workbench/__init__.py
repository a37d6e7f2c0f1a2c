"""The page one starts from: all experiments and runs, new experiments, and the runs of one.

Each part has a model of plain functions (rows, table, form, experiment, launches, actions,
page_actions) and a thin widget (table_view, experiment_view, form_view, runs_view); `live` puts
them together.
"""

from oelm_lib.workbench.live import Workbench

__all__ = ["Workbench"]
