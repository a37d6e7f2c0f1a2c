"""Widgets of workbench.ipynb: a table of all runs, a form for new experiments, their runs.

A part is a file of plain functions and a thin widget of the same name: table and table_view,
experiment and experiment_view, form and form_view, runs and runs_view. `rows` reads what they show,
`actions` and `page_actions` are what buttons do, `launches` starts commands, and `workbench` puts
the parts together.
"""

from oelm_lib.workbench.workbench import Workbench

__all__ = ["Workbench"]
