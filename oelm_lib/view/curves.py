"""Curves of runs, for train, workbench and compare pages: loss, learning rate, gradient norm."""

from typing import Any, NamedTuple

import pandas as pd

from oelm_lib.arms import DASHES, SYMBOLS, ArmStyle, arm_colour
from oelm_lib.runs import frames
from oelm_lib.view.figure import Figure, add_band, add_controls, add_line, new_figure
from oelm_lib.view.selection import select
from oelm_lib.view.series import STATE

Y_TITLES = {"loss": "loss (nats per token)", "perplexity": "perplexity"}
VAL = {"kind": "eval", "column": "loss", "smooth": False, "stat": "mean"}
TRAIN = {"kind": "train", "column": "loss", "smooth": True, "stat": "mean"}


class Line(NamedTuple):
    """A line of a figure: the mean over an arm's runs, or one run.

    Attributes:
        row: Panel, from 1.
        style: Of the arm; dash and symbol tell its seeds apart where the line is one run.
        spec: `runs` (their names) and `group` (arm or seed), for series.trace_values.
    """

    row: int
    name: str
    style: ArmStyle
    spec: dict[str, Any]

    def stroke(self, width: float) -> dict[str, Any]:
        """Return plotly's properties of the line."""
        return {"color": self.style.colour, "dash": self.style.dash, "width": width}

    def marker(self) -> dict[str, Any]:
        """Return plotly's properties of its points."""
        return {"symbol": self.style.symbol, "size": 6, "maxdisplayed": 25}


def loss_curves(
    runs: Any,
    *,
    x: str = "step",
    y: str = "loss",
    smoothing: float = 0.95,
    log: bool = False,
    group: str | None = None,
) -> Figure:
    """Draw training loss, faint and smoothed, and validation loss, marked; one panel per corpus.

    The log's own points stand beside runs on the same complete corpus.

    Args:
        runs: A run, a list of runs, or a frame of load_runs, as selection.select takes them.
        x, y, smoothing, log, group: The reader's choices, as in series.STATE; group defaults to
            seed where no experiment has two runs.
    """
    drawn, problems = select(runs)
    panels, recorded = list(drawn["panel"].unique()), _recorded_points(drawn)
    notes = [
        "marked: validation subset; band: lowest to highest seed; thin: training, smoothed;"
        " faint (one line per seed): training as logged"
    ]
    figure = new_figure("Loss", notes + problems, panels)
    for line in lines(drawn):
        if line.spec["group"] == "seed":
            _add_raw(figure, line.row, line, TRAIN)
        else:
            add_band(figure, line.row, VAL | line.spec, line.name, line.style.colour)
        thin = {"opacity": 0.75, "showlegend": False}
        add_line(figure, line.row, TRAIN | line.spec, line.name, line.stroke(1.2), **thin)
        add_line(
            figure, line.row, VAL | line.spec, line.name, line.stroke(2.2), marker=line.marker()
        )
    for run, (arm, panel, _) in recorded.items():
        look = {"symbol": "x-thin-open", "size": 10, "line_width": 2.5, "color": arm_colour(arm)}
        spec, name = VAL | {"runs": [run], "group": None}, f"{arm}, recorded (other code)"
        row = panels.index(panel) + 1
        add_line(figure, row, spec, name, {}, mode="markers", marker=look)
    figure.update_yaxes(title_text=Y_TITLES[y])
    rows = series_of(drawn) | {run: series for run, (_, _, series) in recorded.items()}
    state = reader_state(drawn, group) | {"x": x, "y": y, "smoothing": smoothing, "log": log}
    return add_controls(figure, rows, state, ["x", "y", "group", "smoothing", "log"])


def rate_and_gradient(
    runs: Any,
    *,
    x: str = "step",
    smoothing: float = 0.95,
    log: bool = False,
    group: str | None = None,
) -> Figure:
    """Draw the learning rate and the gradient norm before clipping; arguments as in loss_curves."""
    drawn, problems = select(runs)
    if drawn["panel"].nunique() > 1:
        drawn = drawn.assign(name=drawn["name"] + ", " + drawn["corpus"])
    panels = ["Learning rate", "Gradient norm"] if len(drawn) else []
    notes = ["gradient norm before clipping: smoothed; faint (one line per seed): as logged"]
    figure = new_figure("Learning rate and gradient norm", notes + problems, panels, 240)
    for line in lines(drawn):
        rate, norm = (
            TRAIN | line.spec | {"column": column} for column in ("learning_rate", "grad_norm")
        )
        linked = {"legendgroup": f"{line.name} {line.spec['group']}"}
        stroke = line.stroke(1.8)
        add_line(figure, 1, rate | {"smooth": False}, line.name, stroke, **linked)
        if line.spec["group"] == "seed":
            _add_raw(figure, 2, line, norm, **linked)
        add_line(figure, 2, norm, line.name, stroke, showlegend=False, **linked)
    figure.update_yaxes(exponentformat="power", rangemode="tozero")
    state = reader_state(drawn, group) | {"x": x, "smoothing": smoothing, "log": log}
    return add_controls(figure, series_of(drawn), state, ["x", "group", "smoothing", "log"])


def lines(drawn: pd.DataFrame) -> list[Line]:
    """Return a line for each variant (its mean), and after it one for each of its runs.

    Args:
        drawn: Frame of selection.select.
    """
    panels, all_lines = list(drawn["panel"].unique()), []
    for _, members in drawn.groupby("variant", sort=False):
        first = members.iloc[0]
        row, name, style = panels.index(first["panel"]) + 1, first["name"], first["style"]
        mean = name if len(members) == 1 else f"{name} (mean of {len(members)})"
        all_lines.append(Line(row, mean, style, {"runs": list(members["run"]), "group": "arm"}))
        for number, run in enumerate(members.itertuples()):
            own = style._replace(
                dash=DASHES[number % len(DASHES)], symbol=SYMBOLS[number % len(SYMBOLS)]
            )
            spec = {"runs": [run.run], "group": "seed"}
            all_lines.append(Line(row, f"{name} · seed {run.seed}", own, spec))
    return all_lines


def series_of(drawn: pd.DataFrame) -> dict[str, Any]:
    """Return run -> series of the runs drawn."""
    return dict(zip(drawn["run"], drawn["series"], strict=True))


def reader_state(drawn: pd.DataFrame, group: str | None) -> dict[str, Any]:
    """Return series.STATE with the grouping: lines by arm where an arm has two runs."""
    return STATE | {"group": group or ("arm" if drawn["variant"].duplicated().any() else "seed")}


def _add_raw(figure: Figure, row: int, line: Line, spec: dict[str, Any], **more: Any) -> None:
    """Add the values as logged, faint and without a legend entry."""
    raw = spec | line.spec | {"stat": "envelope", "smooth": False}
    stroke = {"width": 1, "color": line.style.colour}
    look = {"opacity": 0.3, "showlegend": False} | more
    add_line(figure, row, raw, line.name, stroke, **look)


def _recorded_points(drawn: pd.DataFrame) -> dict[str, tuple[str, str, dict[str, Any]]]:
    """Return run -> (arm, panel, series) of the log's points on the complete corpora drawn."""
    complete = {run.panel for run in drawn.itertuples() if not run.config["corpus"]["sample"]}
    recorded = {}
    for row in frames.recorded().itertuples():
        panel = f"{row.corpus}, {row.tokenizer}"
        if panel in complete:
            points = [(point["step"], None, point["loss"]) for point in row.timing["evaluations"]]
            points.append((int(row.steps), row.wall_seconds, row.final_val_loss))
            step, seconds, loss = zip(*points, strict=True)
            series = {
                "eval": {"step": step, "seconds": seconds, "loss": loss},
                "step_tokens": row.tokens / row.steps,
                "epoch_tokens": row.tokens / row.epochs,
            }
            recorded[row.run] = (row.arm, panel, series)
    return recorded
