"""The workbench: its widgets, kept up to date with the files."""

import time

from oelm_lib.view.widgets import poll
from oelm_lib.workbench.experiment_view import ExperimentView
from oelm_lib.workbench.form_view import FormView
from oelm_lib.workbench.rows import Row, RunRows
from oelm_lib.workbench.runs_view import RunsView
from oelm_lib.workbench.table_view import TableView

POLL_SECONDS = 2.0
"""Least time between two reads of the run folders."""
IDLE_SHARE, BUSY_SHARE = 0.02, 0.1
"""Largest share of the time that reading files takes: while nothing changes, and while runs train.

Wall time, so that a browser which shares a busy machine keeps up with what it has to draw.
"""


class Workbench:
    """All experiments and runs, live; everything it shows is read from files.

    Attributes:
        table, experiment, form, runs: Widgets, each for a cell of the notebook.

    Args:
        outputs: Folder of the run folders; "": the default.
        words: First content of the table's search.
    """

    def __init__(self, outputs: str = "", words: str = ""):
        self._reader, self._due = RunRows(outputs), 0.0
        self._rows: list[Row] = []
        self._tabled: list[Row] | None = None
        self.table = TableView(words, self._show_clicked)
        self.experiment = ExperimentView(self._reader.outputs, self._show_experiment, self.refresh)
        self.form = FormView(self._choose_saved)
        self.runs = RunsView(self._reader.outputs, self.refresh)
        self.refresh()
        self.runs.draws = True
        self._task = poll(self._look, POLL_SECONDS / 2)

    def refresh(self) -> None:
        """Read what changed, and show it."""
        self._rows = rows = self._reader.read()
        if rows is not self._tabled:
            self.table.show(rows)
            self._tabled = rows
        self.experiment.show(rows)
        self.runs.show(rows)

    def _look(self) -> None:
        """Refresh, not so often that it takes more than its share of the time."""
        start = time.monotonic()
        if start < self._due:
            return
        rows = self._rows
        problem = ""
        try:
            self.refresh()
        except Exception as error:  # `poll` would write it to a log, where nobody reads it
            problem = f"{type(error).__name__}: {error}"
        self.table.report(problem)
        share = IDLE_SHARE if self._rows is rows else BUSY_SHARE
        cost = time.monotonic() - start
        self._due = start + max(POLL_SECONDS, cost / share)

    def _show_experiment(self, exp: str) -> None:
        """Show another experiment everywhere."""
        self.table.mark(exp)
        self.experiment.show(self._rows)
        self.form.start_from(exp)
        self.runs.choose(exp)
        self.refresh()

    def _choose_saved(self, exp: str) -> None:
        """Choose an experiment that was just saved."""
        self.refresh()
        self.experiment.choice.value = exp

    def _show_clicked(self, name: str) -> None:
        """Choose the experiment of a row of the table, and select its run alone."""
        row = next((row for row in self._rows if row["run"] == name), None)
        if row:
            self.experiment.choice.value = row["id"]
            self.runs.select(name)
            self.table.mark(name)
