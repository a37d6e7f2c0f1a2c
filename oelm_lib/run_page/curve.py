"""The loss curve of one run while it trains, in a notebook."""

import json
import math
import time
from collections.abc import Callable
from typing import Any

from oelm_lib.arms import arm_colour, arm_name
from oelm_lib.runs.folder import Run
from oelm_lib.runs.reading import read_metrics
from oelm_lib.view.figure import CONFIG, MIMETYPE, new_figure
from oelm_lib.view.series import BUCKETS

INTERVAL_SECONDS = 2.0
MOST_SHARE = 0.01
"""Share of the training time that drawing may take."""
NOTHING = {"text/plain": ""}


class LiveCurve:
    """A figure of training and validation loss that training.train updates as it goes.

    It is a plain output of the cell, updated in place, and it leaves the cell when the last step
    is done: the finished run has a figure of its own.

    Args:
        run: The run to draw, in the colour of its arm.
        clock: Seconds from any start.
    """

    def __init__(self, run: Run, clock: Callable[[], float] = time.monotonic):
        self._run, self._clock = run, clock
        self._colour = arm_colour(arm_name(run.config))
        self._display_id = f"curve-{id(self)}"
        self._shown = False
        self._due = 0.0

    def __call__(self, last: bool = False) -> None:
        """Draw what is new, unless the last drawing is too recent; `last`: clear the figure."""
        now = self._clock()
        if last and self._shown:
            self._display(NOTHING)
        elif not last and now >= self._due:
            try:
                figure = self.figure()
                if self._shown:
                    # JupyterLab's renderer keeps the figure that it has; a new one draws the new.
                    self._display(NOTHING)
                self._display({MIMETYPE: figure, "text/plain": "loss curve"})
            except Exception as error:  # a drawing must not end the training
                print(f"The live curve stops here: {error!r}. The run goes on.")
                self._due = math.inf
                return
            cost = self._clock() - now
            self._due = now + max(INTERVAL_SECONDS, cost / MOST_SHARE)

    def figure(self) -> dict[str, Any]:
        """Return the figure of the rows so far, as plotly's JSON."""
        notes = ["thin: training loss, thinned; marked: validation subset"]
        plain = json.loads(new_figure("Loss so far", notes, [""], 300).to_json())
        rows = read_metrics(self._run).dropna(subset="loss")
        train = rows[rows["event"] == "train"]
        train = train[:: max(math.ceil(len(train) / BUCKETS), 1)]
        plain["data"] = [
            {
                "type": "scatter",
                "name": name,
                "x": points["step"].tolist(),
                "y": points["loss"].round(5).tolist(),
                "mode": mode,
                "line": {"color": self._colour, "width": width},
            }
            for name, points, mode, width in (
                ("training", train, "lines", 1),
                ("validation", rows[rows["event"] == "eval"], "lines+markers", 2.2),
            )
        ]
        return plain | {"config": CONFIG}

    def _display(self, data: dict[str, Any]) -> None:
        from IPython.display import display

        display(data, raw=True, display_id=self._display_id, update=self._shown)
        self._shown = True
