"""Widget that chooses an experiment and shows what it asks, changes and costs."""

from collections.abc import Callable
from pathlib import Path

import ipywidgets

from oelm_lib.view.widgets import Panel, button, dropdown
from oelm_lib.workbench import actions
from oelm_lib.workbench.experiment import experiment_html, file_stamps
from oelm_lib.workbench.rows import Row
from oelm_lib.workbench.runs import progress
from oelm_lib.workbench.widgets import Message

DEFAULT_EXPERIMENT = "DEMO-02"
"""Experiment that is chosen where none has a run."""


class ExperimentView(Panel):
    """A choice of one experiment, and everything to know before it is run.

    Args:
        outputs: Folder of the run folders.
        on_choice: Called with the id of another experiment that was chosen.
        refresh: Reads the files again and shows them.
    """

    def __init__(
        self, outputs: Path, on_choice: Callable[[str], None], refresh: Callable[[], None]
    ):
        self._outputs, self._on_choice, self._refresh = outputs, on_choice, refresh
        self._exp, self._filling, self._shown = "", False, ()
        self.choice = dropdown("experiment", {}, "44em")
        self.choice.observe(lambda change: self._announce_choice(), "value")
        self.facts = ipywidgets.HTML()
        tooltip = "Move your own params/<ID>.yaml, where it has no run, to the trash"
        self.delete = button("Delete experiment", self._delete, tooltip)
        self.message = Message()
        super().__init__([self.choice, self.facts, ipywidgets.HBox([self.delete]), self.message])

    def show(self, rows: list[Row]) -> None:
        """Offer the experiments that exist now, and show the chosen one."""
        titles = {row["id"]: row["title"] for row in rows}  # of a rehearsal, where it is alone
        titles |= {row["id"]: row["title"] for row in rows if "+" not in row["run"]}
        options = {f"{exp} {titles[exp]}": exp for exp in sorted(titles)}
        if self.choice.options != options:
            wanted = (self.choice.value, latest_experiment(rows))
            self._filling = True  # new options choose the first of them for a moment
            self.choice.options = options
            self.choice.value = next((exp for exp in wanted if exp in titles), None)
            self._filling = False
            self._announce_choice()
        exp = self.choice.value
        own = [row for row in rows if row["id"] == exp]
        shown = exp, progress(own), file_stamps(exp) if exp else []
        if exp and shown != self._shown:
            self.facts.value = experiment_html(exp, own)
            self._shown = shown

    def _announce_choice(self) -> None:
        exp = self.choice.value
        if exp and exp != self._exp and not self._filling:
            self._exp = exp
            self.message.value = ""
            self._on_choice(exp)

    def _delete(self) -> None:
        def delete() -> str:
            line = actions.delete_experiment(self.choice.value, self._outputs)
            self._refresh()  # another one is chosen before the line is shown
            return line

        self.message.run(delete)


def latest_experiment(rows: list[Row]) -> str:
    """Return the experiment whose runs changed last, DEFAULT_EXPERIMENT where there is no run."""
    latest = max(rows, key=lambda row: row["changed"], default=None)
    return latest["id"] if latest and latest["changed"] else DEFAULT_EXPERIMENT
