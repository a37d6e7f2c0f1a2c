"""Where all runs stand, live in JupyterLab: what `oelm status` says, curves of runs in progress, their time."""

from html import escape
from typing import Any

import ipywidgets
import pandas as pd

from oelm_lib.compare import plots
from oelm_lib.runs import frames
from oelm_lib.runs.overview import overview, table
from oelm_lib.runs.reading import ACTIVE
from oelm_lib.view.live import put, watch


class Monitor(ipywidgets.VBox):
    """States, loss curves and time budgets of runs, which look again by themselves.

    Args:
        exps, outputs: As frames.load_runs takes them.
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
        """Say where the runs stand; draw again where one has got on."""
        rows = overview(self._exps, self._outputs)
        self.states.value = f"<pre style='line-height:1.3'>{escape(table(rows))}</pre>"
        progress = [(row["run"], row["state"], row.get("step")) for row in rows]
        if progress == self._progress:
            return
        self._progress = progress
        runs = frames.load_runs(self._exps, self._outputs)
        active = runs[runs["state"].isin(ACTIVE)]
        put(self.curves, plots.loss_curves(active, group="seed"))
        put(
            self.budgets,
            plots.time_budget(_spent(active, {row["run"]: row.get("budget") for row in rows})),
        )

    def _look(self) -> None:
        try:
            self.refresh()
        except Exception as error:  # a task would die in silence
            self.states.value = f"<pre>{escape(repr(error))}</pre>"


def _spent(runs: pd.DataFrame, budgets: dict[str, Any]) -> pd.DataFrame:
    """The runs as time_budget takes those that are done, with what they have spent so far."""
    runs = runs[runs["run"].isin([run for run, parts in budgets.items() if parts])]
    spent = [budgets[run] for run in runs["run"]]
    return runs.assign(
        state="done",
        timing=[{"budget": parts} for parts in spent],
        wall_seconds=[sum(p.values()) for p in spent],
    )
