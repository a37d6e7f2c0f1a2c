"""Live choices for JupyterLab; the exported page has its own controls and needs none of this."""

from typing import Any

import ipywidgets
import pandas as pd

from oelm_lib.compare import plots, tables
from oelm_lib.view import series
from oelm_lib.view.live import put, watch

FIGURES = {
    "loss": "loss curves",
    "gap": "gap to the baseline",
    "rate": "learning rate, gradient norm",
}


class CurveExplorer(ipywidgets.VBox):
    """A figure with choices of runs, axes, smoothing and baseline, which follows runs in progress.

    Args:
        exps, outputs: As frames.load_runs takes them.
        baseline: Experiment the gap is first drawn to.
        interval: Seconds between looks at the run folders.
    """

    def __init__(
        self, exps: str = "*", baseline: str = "", outputs: str = "", interval: float = 5.0
    ):
        self._exps, self._outputs = exps, outputs
        self._frame = tables.load_runs(exps, outputs)
        ids = sorted(set(self._frame["id"]))
        self.runs = ipywidgets.SelectMultiple(description="runs", rows=8, layout={"width": "26em"})
        self.figure = _choice("figure", {words: key for key, words in FIGURES.items()})
        self.x = _choice("x", ["step", "tokens", "hours", "epochs"])
        self.y = _choice("y", ["loss", "perplexity"])
        self.group = _choice("lines", {"one per arm": "arm", "one per seed": "seed"})
        self.baseline = _choice("baseline", ids, baseline if baseline in ids else None)
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
        self._offer_runs()
        choices = [
            self.figure,
            self.x,
            self.y,
            self.group,
            self.baseline,
            self.smoothing,
            self.log_scale,
            self.follow,
        ]
        super().__init__(
            [
                ipywidgets.HBox(
                    [self.runs, ipywidgets.VBox(choices[:5]), ipywidgets.VBox(choices[5:])]
                ),
                self.output,
            ]
        )
        for widget in (self.runs, *choices[:-1]):
            widget.observe(lambda change: self.draw(), "value")
        self.draw()
        self._task = watch(lambda: self.follow.value and self.refresh(), interval)

    def draw(self) -> None:
        """Draw the figure that the choices ask for."""
        picked = self._frame["run"].isin(self.runs.value)
        chosen = self._frame[picked]
        x, group, smoothing = self.x.value, self.group.value, self.smoothing.value
        if self.figure.value == "gap":
            base = self.baseline.value
            figure = plots.gap_curves(
                self._frame[picked | (self._frame["id"] == base)], base, x=x, group=group
            )
        elif self.figure.value == "rate":
            figure = plots.rate_and_gradient(chosen, x=x, smoothing=smoothing, group=group)
        else:
            figure = plots.loss_curves(
                chosen,
                x=x,
                y=self.y.value,
                smoothing=smoothing,
                log=self.log_scale.value,
                group=group,
            )
        put(self.output, figure)

    def refresh(self) -> None:
        """Look for new rows and new runs, and draw again where there are any."""
        frame = tables.load_runs(self._exps, self._outputs)
        if _progress(frame) != _progress(self._frame):
            self._frame = frame
            self._offer_runs()
            self.draw()

    def _offer_runs(self) -> None:
        known, kept = self.runs.options, self.runs.value
        options = tuple(self._frame["run"])
        if options != known:
            self.runs.options = options
            self.runs.value = [run for run in options if run in kept or run not in known]


def _progress(frame: pd.DataFrame) -> list[list[str]]:
    """Changes whenever a run gets on."""
    return frame[["run", "state", "steps"]].astype(str).values.tolist()


def _choice(name: str, options: Any, value: Any = None) -> ipywidgets.Dropdown:
    return ipywidgets.Dropdown(
        description=name, options=options, **({"value": value} if value else {})
    )
