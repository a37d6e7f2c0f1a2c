"""Live choices of curves for JupyterLab; the exported page has its own controls."""

import ipywidgets
import pandas as pd

from oelm_lib.compare.pairs import pairs
from oelm_lib.compare.plots import gap_curves
from oelm_lib.runs.frames import load_runs
from oelm_lib.view import series
from oelm_lib.view.curves import loss_curves, rate_and_gradient
from oelm_lib.view.figure import Figure
from oelm_lib.view.widgets import Panel, columns, dropdown, poll, put

FIGURES = {
    "loss curves": "loss",
    "gap to the baseline": "gap",
    "learning rate, gradient norm": "rate",
}
OWN_BASELINE = "each experiment's own"
WIDTH = "300px"
POLL_SECONDS = 5.0
"""Time between looks at the run folders."""


class CurveExplorer(Panel):
    """A figure with choices of runs, axes, smoothing and baseline, which follows runs in progress.

    Args:
        exps, outputs: Arguments of load_runs. Rehearsals are left out, unless a glob with `+`
            names them, e.g. `DEMO-02*+*`.
        baseline: Experiment that the gap is first drawn to; default each experiment's own.
    """

    def __init__(self, exps: str = "*", baseline: str = "", outputs: str = ""):
        self._exps, self._outputs = exps, outputs
        self._wanted = baseline  # until a run of it exists
        self._filling = False  # whether the options change, which empties a choice for a moment
        self._frame = load_runs(exps, outputs, rehearsals=False)
        self.runs = ipywidgets.SelectMultiple(description="runs", rows=8, layout={"width": "26em"})
        self.figure = dropdown("figure", FIGURES, WIDTH)
        self.x = dropdown("x", ["step", "tokens", "hours", "epochs"], WIDTH)
        self.y = dropdown("y", ["loss", "perplexity"], WIDTH)
        self.group = dropdown("lines", {"one per arm": "arm", "one per seed": "seed"}, WIDTH)
        self.baseline = dropdown("baseline", {OWN_BASELINE: ""}, WIDTH)
        self.smoothing = ipywidgets.FloatSlider(
            series.STATE["smoothing"],
            min=0,
            max=0.995,
            step=0.005,
            readout_format=".3f",
            description="smoothing",
        )
        self.log_scale = ipywidgets.Checkbox(description="log scale")
        self.follow = ipywidgets.Checkbox(True, description="follow runs in progress")
        self.output = ipywidgets.Output()
        self._update_options()
        left = [self.figure, self.x, self.y, self.group, self.baseline]
        right = [self.smoothing, self.log_scale, self.follow]
        choices = columns(self.runs, ipywidgets.VBox(left), ipywidgets.VBox(right))
        super().__init__([choices, self.output])
        for widget in (self.runs, *left, self.smoothing, self.log_scale):
            widget.observe(lambda change: self.draw(), "value")
        self.draw()
        self._task = poll(lambda: self.follow.value and self.refresh(), POLL_SECONDS)

    def draw(self) -> None:
        """Draw the figure that the choices ask for."""
        if not self._filling:
            put(self.output, self._figure())

    def refresh(self) -> None:
        """Read the run folders; where a run made progress or a new one appeared, draw again."""
        frame = load_runs(self._exps, self._outputs, rehearsals=False)
        if _progress(frame) != _progress(self._frame):
            self._frame = frame
            self._update_options()
            self.draw()

    def _figure(self) -> Figure:
        chosen = self._frame["run"].isin(self.runs.value)
        runs, axes = self._frame[chosen], {"x": self.x.value, "group": self.group.value}
        if self.figure.value == "gap":
            base = self.baseline.value
            return gap_curves(self._frame[chosen | self._is_baseline(runs)], base, **axes)
        look = axes | {"smoothing": self.smoothing.value, "log": self.log_scale.value}
        if self.figure.value == "rate":
            return rate_and_gradient(runs, **look)
        return loss_curves(runs, y=self.y.value, **look)

    def _is_baseline(self, runs: pd.DataFrame) -> pd.Series:
        """Return which rows are runs of the baseline that the chosen runs are drawn against."""
        if self.baseline.value:
            return self._frame["id"] == self.baseline.value
        variants = {
            pair.base.iloc[0]["variant"]
            for pair in pairs(self._frame)
            if pair.base is not None and pair.arm.iloc[0]["variant"] in set(runs["variant"])
        }
        return self._frame["variant"].isin(variants)

    def _update_options(self) -> None:
        """Offer the runs and the baselines that exist now, and keep what was chosen."""
        self._filling = True
        known, kept = self.runs.options, self.runs.value
        options = tuple(self._frame["run"])
        if options != known:
            self.runs.options = options
            self.runs.value = [run for run in options if run in kept or run not in known]
        ids = sorted(set(self._frame["id"]))
        baselines = {OWN_BASELINE: "", **{exp: exp for exp in ids}}
        if self.baseline.options != baselines:
            chosen = self.baseline.value or self._wanted
            self.baseline.options = baselines
            if chosen in ids:
                self.baseline.value, self._wanted = chosen, ""
        self._filling = False


def _progress(frame: pd.DataFrame) -> list[list[str]]:
    """Return what changes whenever a run makes progress."""
    return frame[["run", "state", "steps"]].astype(str).values.tolist()
