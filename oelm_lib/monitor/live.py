"""All runs, live in JupyterLab: their table, their curves, and where their time goes."""

from html import escape
from typing import Any

import ipywidgets
import pandas as pd

from oelm_lib.monitor.table import STATES, run_table, select_rows
from oelm_lib.runs import frames
from oelm_lib.runs.overview import overview
from oelm_lib.view.budget import time_budget
from oelm_lib.view.curves import loss_curves
from oelm_lib.view.live import put, watch

MOST_CURVES = 12
"""Runs drawn at once; more lines than that cannot be told apart."""


class Monitor(ipywidgets.VBox):
    """A table of runs with a filter, and the curves and time budgets of the runs in it.

    Args:
        exps, outputs: As frames.load_runs takes them.
        interval: Seconds between looks at the run folders.
    """

    def __init__(self, exps: str = "*", outputs: str = "", interval: float = 5.0):
        self._exps, self._outputs = exps, outputs
        self._drawn: list[Any] = []
        self.words = ipywidgets.Text(
            description="filter", placeholder="part of a name, or DEMO-0[12]*"
        )
        self.state = ipywidgets.Dropdown(description="state", options=STATES)
        self.states = ipywidgets.HTML()
        self.note = ipywidgets.HTML()
        self.curves = ipywidgets.Output()
        self.budgets = ipywidgets.Output()
        choices = ipywidgets.HBox([self.words, self.state])
        super().__init__([choices, self.states, self.note, self.curves, self.budgets])
        self.refresh()
        for widget in (self.words, self.state):
            widget.observe(lambda change: self._look(), "value")
        self._task = watch(self._look, interval)

    def refresh(self) -> None:
        """Read the run folders; draw again where a run that is shown has new rows."""
        rows = select_rows(overview(self._exps, self._outputs), self.words.value, self.state.value)
        self.states.value = run_table(rows)
        drawn = _newest(rows)
        progress = [(row["run"], row["state"], row.get("step")) for row in drawn]
        if progress == self._drawn:
            return
        self._drawn = progress
        left = len(rows) - len(drawn)
        self.note.value = f"<p>{left} older runs are not drawn; use the filter.</p>" if left else ""
        names = [row["run"] for row in drawn]
        runs = frames.load_runs(self._exps, self._outputs)
        runs = runs[runs["run"].isin(names)]
        put(self.curves, loss_curves(runs, group="seed"))
        budgets = {row["run"]: row.get("budget") for row in drawn}
        put(self.budgets, time_budget(_with_budgets(runs, budgets)))

    def _look(self) -> None:
        try:
            self.refresh()
        except Exception as error:  # else the task would end without a word
            self.states.value = f"<pre>{escape(repr(error))}</pre>"


def _newest(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The rows to draw: runs in progress first, then the last ones of the table."""
    active = select_rows(rows, state="active")
    others = [row for row in rows if row not in active]
    chosen = [*others, *active][-MOST_CURVES:]
    return [row for row in rows if row in chosen]


def _with_budgets(runs: pd.DataFrame, budgets: dict[str, Any]) -> pd.DataFrame:
    """The runs in the shape that time_budget takes, with the seconds spent so far."""
    runs = runs[runs["run"].isin([run for run, parts in budgets.items() if parts])]
    spent = [budgets[run] for run in runs["run"]]
    return runs.assign(
        state="done",
        timing=[{"budget": parts} for parts in spent],
        wall_seconds=[sum(parts.values()) for parts in spent],
    )
