"""Live monitor of runs for JupyterLab: the table of `oelm status`, loss curves and time budgets."""

from html import escape
from typing import Any

import ipywidgets
import pandas as pd

from oelm_lib.runs import frames
from oelm_lib.runs.overview import overview, table
from oelm_lib.runs.reading import ACTIVE
from oelm_lib.view.budget import time_budget
from oelm_lib.view.curves import loss_curves
from oelm_lib.view.live import put, watch


class Monitor(ipywidgets.VBox):
    """States, loss curves and time budgets of runs, refreshed while the kernel runs.

    Args:
        exps, outputs: Arguments of load_runs.
        interval: Seconds between looks at the run folders.
    """

    def __init__(self, exps: str = "*", outputs: str = "", interval: float = 5.0):
        self._exps, self._outputs = exps, outputs
        self._progress: list[Any] = []
        self.states, self.curves, self.budgets = (
            ipywidgets.HTML(),
            ipywidgets.Output(),
            ipywidgets.Output(),
        )
        super().__init__([self.states, self.curves, self.budgets])
        self.refresh()
        self._task = watch(self._look, interval)

    def refresh(self) -> None:
        """Show the state of the runs; draw the figures again where a run made progress."""
        rows = overview(self._exps, self._outputs)
        self.states.value = f"<pre style='line-height:1.3'>{escape(table(rows))}</pre>"
        progress = [(row["run"], row["state"], row.get("step")) for row in rows]
        if progress == self._progress:
            return
        self._progress = progress
        runs = frames.load_runs(self._exps, self._outputs)
        active = runs[runs["state"].isin(ACTIVE)]
        put(self.curves, loss_curves(active, group="seed"))
        budgets = {row["run"]: row.get("budget") for row in rows}
        put(self.budgets, time_budget(_as_done(active, budgets)))

    def _look(self) -> None:
        try:
            self.refresh()
        except Exception as error:  # an exception would end the task without a message
            self.states.value = f"<pre>{escape(repr(error))}</pre>"


def _as_done(runs: pd.DataFrame, budgets: dict[str, Any]) -> pd.DataFrame:
    """Return the runs in progress with their time so far, in the form of done runs."""
    runs = runs[runs["run"].isin([run for run, parts in budgets.items() if parts])]
    spent = [budgets[run] for run in runs["run"]]
    return runs.assign(
        state="done",
        timing=[{"budget": parts} for parts in spent],
        wall_seconds=[sum(p.values()) for p in spent],
    )
