"""Figures from run folders; the reader's choices work in JupyterLab's widgets and in the exported page."""

import math
from html import escape
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from oelm_lib import stats as statistics
from oelm_lib.arms import arm_colours
from oelm_lib.compare import pairs, tables
from oelm_lib.runs import frames
from oelm_lib.view import figure as base
from oelm_lib.view.figure import Figure
from oelm_lib.view.series import STATE, trace_values

SYMBOLS = ("circle", "square", "diamond", "triangle-up", "cross", "star")
DASHES = ("solid", "dash", "dot", "dashdot")
Y_TITLES = {"loss": "loss (nats per token)", "perplexity": "perplexity"}
# No colour of an arm among them.
BUDGET = {
    "step": "#5a6b7d",
    "evaluation": "#cfa640",
    "final_evaluation": "#e4cf93",
    "data": "#8a5a83",
    "compile": "#b5658a",
}
BUDGET |= {"saving": "#79aea6", "setup": "#a9b0b7", "page": "#b98f6d", "other": "#d3d7db"}
VAL = {"kind": "eval", "column": "loss", "smooth": False, "stat": "mean"}
TRAIN = {"kind": "train", "column": "loss", "smooth": True, "stat": "mean"}


def loss_curves(
    runs: Any,
    *,
    x: str = "step",
    y: str = "loss",
    smoothing: float = 0.95,
    log: bool = False,
    group: str | None = None,
) -> Figure:
    """Draw training loss, faint and smoothed, and validation loss, marked; one panel for each corpus.

    The log's own points stand beside runs on the same complete corpus.

    Args:
        runs: As figure.select takes them: a run, a list of runs, or a frame of frames.load_runs.
        x, y, smoothing, log, group: The reader's choices, as in series.STATE; group defaults to seed where no
            experiment has two runs.
    """
    drawn, notes = base.select(runs)
    panels, recorded = list(drawn["panel"].unique()), _recorded(drawn)
    notes = [
        "marked: validation subset; thin: training, smoothed; faint: training as logged",
        *notes,
    ]
    figure = base.new_figure("Loss", notes, panels)
    for row, name, colour, nth, by in _lines(drawn):
        if by["group"] == "seed":
            raw = TRAIN | by | {"stat": "envelope", "smooth": False}
            base.add_line(
                figure, row, raw, name, {"width": 1, "color": colour}, opacity=0.3, showlegend=False
            )
        else:
            base.add_band(figure, row, VAL | by, name, colour)
        style = {"color": colour, "dash": DASHES[nth % len(DASHES)]}
        base.add_line(
            figure, row, TRAIN | by, name, style | {"width": 1.2}, opacity=0.75, showlegend=False
        )
        base.add_line(figure, row, VAL | by, name, style | {"width": 2.2}, marker=_marker(nth))
    for key, (arm, panel, _) in recorded.items():
        marker = {
            "symbol": "x-thin-open",
            "size": 10,
            "line_width": 2.5,
            "color": arm_colours([arm])[arm],
        }
        spec, name = VAL | {"runs": [key], "group": None}, f"{arm}, recorded (other code)"
        base.add_line(
            figure, panels.index(panel) + 1, spec, name, {}, mode="markers", marker=marker
        )
    figure.update_yaxes(title_text=Y_TITLES[y])
    rows = _rows(drawn) | {key: series for key, (_, _, series) in recorded.items()}
    state = _state(drawn, group) | {"x": x, "y": y, "smoothing": smoothing, "log": log}
    return base.finish(figure, rows, state, ["x", "y", "group", "smoothing", "log"])


def gap_curves(
    runs: pd.DataFrame, baseline: str | None = None, *, x: str = "step", group: str | None = None
) -> Figure:
    """Draw each arm's validation perplexity relative to its baseline, at equal x and seed, with the 5 % line.

    Args:
        runs: Frame of frames.load_runs.
        baseline: As pairs.pairs takes it.
        x, group: The reader's choices.
    """
    drawn, _ = base.select(runs)
    below: dict[str, str] = {}
    for pair in (pair for pair in pairs.pairs(drawn, baseline) if pair.base is not None):
        same_seed = pair.arm.merge(pair.base, on="seed")
        below |= dict(zip(same_seed["run_x"], same_seed["run_y"], strict=True))
    judged = drawn[drawn["run"].isin(below)]
    alone = [run for run in drawn["run"] if run not in {*below, *below.values()}]
    notes = [
        "perplexity / baseline's perplexity - 1 at the same x and seed, on the validation subset"
    ]
    notes += [f"{run}: no baseline with its seed" for run in alone]
    figure = base.new_figure("Gap to the baseline", notes, list(judged["panel"].unique()))
    for row, name, colour, nth, by in _lines(judged):
        spec = VAL | by | {"base": [below[key] for key in by["runs"]]}
        if by["group"] == "arm":
            base.add_band(figure, row, spec, name, colour)
        style = {"color": colour, "width": 2.2, "dash": DASHES[nth % len(DASHES)]}
        base.add_line(figure, row, spec, name, style, marker=_marker(nth))
    if below:
        limit = 100 * (statistics.CRITERION - 1)
        text = {
            "annotation_text": f"criterion +{limit:.0f} %",
            "annotation_position": "bottom right",
        }
        figure.add_hline(y=limit, line={"dash": "dash", "width": 1.5, "color": base.INK}, **text)
        figure.add_hline(y=0, line={"width": 1, "color": base.INK})
    figure.update_yaxes(title_text="gap in perplexity (%)")
    return base.finish(figure, _rows(drawn), _state(judged, group) | {"x": x}, ["x", "group"])


def rate_and_gradient(
    runs: Any, *, x: str = "step", smoothing: float = 0.95, group: str | None = None
) -> Figure:
    """Draw the learning rate and the gradient norm before clipping; arguments as in loss_curves."""
    drawn, notes = base.select(runs)
    if drawn["panel"].nunique() > 1:
        drawn = drawn.assign(name=drawn["name"] + ", " + drawn["corpus"])
    panels = ["Learning rate", "Gradient norm"] if len(drawn) else []
    notes = ["gradient norm before clipping: smoothed, and faint as logged", *notes]
    figure = base.new_figure("Learning rate and gradient norm", notes, panels, height=240)
    for _, name, colour, nth, by in _lines(drawn):
        style = {"color": colour, "dash": DASHES[nth % len(DASHES)]}
        shared = {"legendgroup": f"{name} {by['group']}"}
        rate, norm = (TRAIN | by | {"column": column} for column in ("learning_rate", "grad_norm"))
        base.add_line(figure, 1, rate | {"smooth": False}, name, style | {"width": 2}, **shared)
        shared["showlegend"] = False
        if by["group"] == "seed":
            raw = norm | {"stat": "envelope", "smooth": False}
            base.add_line(
                figure, 2, raw, name, {"width": 1, "color": colour}, opacity=0.3, **shared
            )
        base.add_line(figure, 2, norm, name, style | {"width": 1.6}, **shared)
    figure.update_yaxes(exponentformat="power", rangemode="tozero")
    state = _state(drawn, group) | {"x": x, "smoothing": smoothing}
    return base.finish(figure, _rows(drawn), state, ["x", "group", "smoothing", "log"])


def tokens_to_reach(runs: Any) -> Figure:
    """Draw the tokens each arm sees until its validation loss (mean over seeds) first falls to a value."""
    drawn, notes = base.select(runs)
    notes = [
        "read upwards from a loss: the tokens each arm needs to get there for the first time",
        *notes,
    ]
    figure = base.new_figure("Tokens to reach a loss", notes, list(drawn["panel"].unique()))
    for row, name, colour, _, by in _lines(drawn):
        if by["group"] == "arm":
            tokens, loss = trace_values(VAL | by, _rows(drawn), STATE | {"x": "tokens"})
            first = np.flatnonzero(np.diff(np.fmin.accumulate(loss), prepend=math.inf) < 0)
            points = {
                "x": loss[first].round(5).tolist(),
                "y": tokens[first].tolist(),
                "marker": _marker(0),
            }
            line = {"color": colour, "width": 2.2}
            base.add(
                figure,
                row,
                go.Scatter(**points, name=escape(name), line=line, mode="lines+markers"),
            )
    figure.update_xaxes(autorange="reversed", rangemode="normal")
    figure.update_yaxes(title_text="tokens seen", rangemode="tozero")
    base.title_x(figure, Y_TITLES["loss"])
    return figure


def final_perplexity(runs: pd.DataFrame, metric: str = "final_val_loss") -> Figure:
    """Draw each arm's perplexity: its seeds, their mean with a 95 % interval, and 1.05 x the baseline's.

    Args:
        runs: Frame of frames.load_runs, of tables.recorded, or both.
        metric: A column of losses.
    """
    panels = dict(list(pairs.comparable(runs, metric).groupby(["corpus", "tokenizer"], sort=False)))
    height = 60 + 44 * max((rows["variant"].nunique() for rows in panels.values()), default=2)
    notes = ["ticks: seeds; dot: their mean with a 95 % t-interval; dashed: 1.05 x baseline"]
    figure = base.new_figure("Perplexity", notes, [", ".join(key) for key in panels], height=height)
    for row, rows in enumerate(panels.values(), 1):
        names = [
            _perplexity(figure, row, group, metric)
            for _, group in rows.groupby("variant", sort=False)
        ]
        figure.update_yaxes(range=[len(names) - 0.4, -0.6], showgrid=False, row=row, col=1)
    figure.update_xaxes(rangemode="normal").update_layout(showlegend=False)
    base.title_x(figure, "perplexity")
    return figure


def _perplexity(figure: Figure, row: int, group: pd.DataFrame, metric: str) -> str:
    """Draw one arm; returns the name of its line."""
    first, losses = group.iloc[0], group[metric].to_numpy()
    who = first["variant"] if first["source"] == frames.RECORDED else frames.name(first)
    name = f"{escape(first['arm'])}<br>{who}, n = {len(group)}"
    colour = arm_colours([first["arm"]])[first["arm"]]
    interval = statistics.paired_interval(losses)
    mean, low, high = np.exp([interval.mean, interval.low, interval.high])
    tick = {"color": colour, "size": 14, "symbol": "line-ns-open", "line_width": 2}
    look = {"mode": "markers", "hoverinfo": "x"}
    seeds = {
        "x": np.exp(losses).round(5).tolist(),
        "y": [name] * len(losses),
        "name": "seeds",
        "marker": tick,
    }
    base.add(figure, row, go.Scatter(**seeds, **look))
    bar = {
        "array": [high - mean],
        "arrayminus": [mean - low],
        "symmetric": False,
        "thickness": 2,
        "width": 0,
    }
    dot = {"x": [mean], "y": [name], "name": "mean", "marker": {"color": colour, "size": 11}}
    base.add(figure, row, go.Scatter(**dot, error_x=bar if interval.known else None, **look))
    if first["arm"] == "baseline":
        line = {"dash": "dash", "width": 1.5, "color": base.INK}
        figure.add_vline(x=statistics.CRITERION * mean, line=line, row=row, col=1)
    return name


def time_budget(runs: pd.DataFrame) -> Figure:
    """Draw where the wall time of each done run went; `runs` is a frame of frames.load_runs."""
    spent = tables.time_budget(runs)
    longest = spent["wall_seconds"].max() if len(spent) else 0
    unit, seconds = next(
        (u for u in (("hours", 3600), ("minutes", 60)) if longest > 2 * u[1]), ("seconds", 1)
    )
    panels = ["all"] if len(spent) else []
    figure = base.new_figure(
        "Where the time went", ["wall time of each run"], panels, 40 + 24 * max(len(spent), 6)
    )
    for part, colour in BUDGET.items() if panels else ():
        x = (spent[part].fillna(0) / seconds).round(5).tolist()
        base.add(
            figure,
            1,
            go.Bar(
                x=x,
                y=list(spent["run"]),
                name=part.replace("_", " "),
                orientation="h",
                marker_color=colour,
            ),
        )
    figure.update_layout(barmode="stack", bargap=0.3, legend_traceorder="normal").update_xaxes(
        title_text=unit
    )
    return figure.update_yaxes(autorange="reversed", showgrid=False)


def _state(drawn: pd.DataFrame, group: str | None) -> dict[str, Any]:
    return STATE | {"group": group or ("arm" if drawn["variant"].duplicated().any() else "seed")}


def _rows(drawn: pd.DataFrame) -> dict[str, Any]:
    return dict(zip(drawn["run"], drawn["series"], strict=True))


def _lines(drawn: pd.DataFrame) -> list[tuple[int, str, str, int, dict[str, Any]]]:
    """(panel row, name, colour, nth of its group, runs and grouping): a line for each group, then one for each run."""
    panels, found = list(drawn["panel"].unique()), []
    for _, members in drawn.groupby("variant", sort=False):
        first = members.iloc[0]
        row, name, colour = panels.index(first["panel"]) + 1, first["name"], first["colour"]
        counted = name if len(members) == 1 else f"{name} (mean of {len(members)})"
        found.append((row, counted, colour, 0, {"runs": list(members["run"]), "group": "arm"}))
        for nth, run in enumerate(members.itertuples()):
            found.append(
                (
                    row,
                    f"{name} · seed {run.seed}",
                    colour,
                    nth,
                    {"runs": [run.run], "group": "seed"},
                )
            )
    return found


def _marker(nth: int) -> dict[str, Any]:
    return {"symbol": SYMBOLS[nth % len(SYMBOLS)], "size": 6, "maxdisplayed": 25}


def _recorded(drawn: pd.DataFrame) -> dict[str, tuple[str, str, dict[str, Any]]]:
    """Run -> (arm, panel, series) of the log's points on the complete corpora that are drawn."""
    whole = {run.panel for run in drawn.itertuples() if not run.config["corpus"]["sample"]}
    found = {}
    for row in frames.recorded().itertuples():
        panel = f"{row.corpus}, {row.tokenizer}"
        if panel in whole:
            points = [
                (point["step"], None, math.log(point["perplexity"]))
                for point in row.timing["evaluations"]
            ]
            points.append((int(row.steps), row.wall_seconds, row.final_val_loss))
            step, seconds, loss = zip(*points, strict=True)
            series = {"eval": {"step": step, "seconds": seconds, "loss": loss}}
            series |= {
                "step_tokens": row.tokens / row.steps,
                "epoch_tokens": row.tokens / row.epochs,
            }
            found[row.run] = (row.arm, panel, series)
    return found
