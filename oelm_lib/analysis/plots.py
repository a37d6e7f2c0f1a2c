"""Figures from run folders; the reader's choices work in JupyterLab's widgets and in the exported page."""

import math
from html import escape
from typing import Any

import numpy as np
import plotly.graph_objects as go

from oelm_lib.analysis import figure as base
from oelm_lib.analysis import frames, statistics, tables
from oelm_lib.analysis.arms import arm_colours
from oelm_lib.analysis.figure import Figure, Selection
from oelm_lib.analysis.series import STATE, trace_values

SYMBOLS = ("circle", "square", "diamond", "triangle-up", "cross", "star")
DASHES = ("solid", "dash", "dot", "dashdot")
Y_TITLES = {"loss": "loss (nats per token)", "perplexity": "perplexity"}
BUDGET = {  # no colour of an arm among them
    "step": "#5a6b7d",
    "evaluation": "#cfa640",
    "final_evaluation": "#e4cf93",
    "data": "#8a5a83",
    "saving": "#79aea6",
    "setup": "#a9b0b7",
    "other": "#d3d7db",
}


def loss_curves(
    runs: Any, *, x: str = "step", y: str = "loss", smoothing: float = 0.95, log: bool = False, group: str | None = None
) -> Figure:
    """Draw training loss, faint and smoothed, and validation loss, marked; one panel for each corpus.

    The log's own points stand beside runs on the same complete corpus.

    Args:
        runs: A run or a list of runs (Run objects or folders).
        x, y, smoothing, log, group: The reader's choices, as in series.STATE; group defaults to seed where no
            experiment has two runs.
    """
    chosen = base.select(runs)
    state = _state(chosen, group) | {"x": x, "y": y, "smoothing": smoothing, "log": log}
    notes = ["marked: validation subset; thin: training, smoothed; faint: training as logged"]
    figure = base.new_figure("Loss", notes + chosen.notes, chosen.panels)
    train = {"kind": "train", "column": "loss", "smooth": True, "stat": "mean"}
    val = train | {"kind": "eval", "smooth": False}
    for row, name, colour, by in _lines(chosen):
        if by["group"] == "seed":
            raw = train | by | {"stat": "envelope", "smooth": False}
            base.add_line(figure, row, raw, name, {"width": 1, "color": colour}, opacity=0.3, showlegend=False)
        elif len(by["runs"]) > 1:
            base.add_band(figure, row, val | by, name, colour)
        style = {"color": colour, "dash": DASHES[by["nth"] % len(DASHES)]}
        base.add_line(figure, row, train | by, name, style | {"width": 1.2}, opacity=0.75, showlegend=False)
        base.add_line(figure, row, val | by, name, style | {"width": 2.2}, marker=_marker(by["nth"]))
    recorded = _recorded(chosen)
    for key, (panel, arm, _) in recorded.items():
        spec = val | {"runs": [key], "group": None}
        marker = {"symbol": "x-thin-open", "size": 10, "line_width": 2.5, "color": arm_colours([arm])[arm]}
        row = chosen.panels.index(panel) + 1
        base.add_line(figure, row, spec, f"{arm}, recorded (other code)", {}, mode="markers", marker=marker)
    rows = {key: series for key, (_, _, series) in recorded.items()}
    figure.update_yaxes(title_text=Y_TITLES[state["y"]])
    return base.finish(figure, chosen, state, ["x", "y", "group", "smoothing", "log"], rows)


def gap_curves(runs: Any, baseline: str | None = None, *, x: str = "step", group: str | None = None) -> Figure:
    """Draw each arm's validation perplexity relative to its baseline, at equal x and seed, with the 5 % line.

    Args:
        runs: Frame of tables.load_runs.
        baseline: As frames.pairs takes it.
        x, group: The reader's choices.
    """
    chosen = base.select(runs)
    keys = {run.key for run in chosen.runs}
    pairs = {}
    for pair in frames.pairs(runs, baseline):
        if pair.base is not None:
            below = dict(zip(pair.base["seed"], pair.base["run"], strict=True))
            pairs |= {
                run: below[seed] for run, seed in zip(pair.arm["run"], pair.arm["seed"], strict=True) if seed in below
            }
    pairs = {run: below for run, below in pairs.items() if {run, below} <= keys}
    shown = Selection([run for run in chosen.runs if run.key in pairs], [])
    notes = ["perplexity / baseline's perplexity - 1 at the same x and seed, on the validation subset"]
    notes += [
        f"{run.key}: no baseline with its seed" for run in chosen.runs if run.key not in {*pairs, *pairs.values()}
    ]
    figure = base.new_figure("Gap to the baseline", notes, shown.panels)
    for row, name, colour, by in _lines(shown):
        spec = {"kind": "eval", "column": "loss", "smooth": False, "stat": "mean"} | by
        spec["base"] = [pairs[key] for key in by["runs"]]
        if len(by["runs"]) > 1:
            base.add_band(figure, row, spec, name, colour)
        style = {"color": colour, "width": 2.2, "dash": DASHES[by["nth"] % len(DASHES)]}
        base.add_line(figure, row, spec, name, style, marker=_marker(by["nth"]))
    if pairs:
        limit = 100 * (statistics.CRITERION - 1)
        text = {"annotation_text": f"criterion +{limit:.0f} %", "annotation_position": "bottom right"}
        figure.add_hline(y=limit, line={"dash": "dash", "width": 1.5, "color": base.INK}, **text)
        figure.add_hline(y=0, line={"width": 1, "color": base.INK})
    figure.update_yaxes(title_text="gap in perplexity (%)")
    return base.finish(figure, chosen, _state(shown, group) | {"x": x}, ["x", "group"])


def rate_and_gradient(runs: Any, *, x: str = "step", smoothing: float = 0.95, group: str | None = None) -> Figure:
    """Draw the learning rate and the gradient norm before clipping; arguments as in loss_curves."""
    chosen = base.select(runs)
    notes = ["gradient norm before clipping: smoothed, and faint as logged"]
    panels = ["Learning rate", "Gradient norm"] if chosen.runs else []
    figure = base.new_figure("Learning rate and gradient norm", notes + chosen.notes, panels, height=240)
    for _, name, colour, by in _lines(chosen):
        style = {"color": colour, "dash": DASHES[by["nth"] % len(DASHES)]}
        spec = {"kind": "train", "smooth": False, "stat": "mean", "column": "learning_rate"} | by
        base.add_line(figure, 1, spec, name, style | {"width": 2}, legendgroup=name)
        spec = spec | {"column": "grad_norm"}
        more = {"legendgroup": name, "showlegend": False}
        if by["group"] == "seed":
            base.add_line(
                figure, 2, spec | {"stat": "envelope"}, name, {"width": 1, "color": colour}, opacity=0.3, **more
            )
        base.add_line(figure, 2, spec | {"smooth": True}, name, style | {"width": 1.6}, **more)
    figure.update_yaxes(exponentformat="power", rangemode="tozero")
    state = _state(chosen, group) | {"x": x, "smoothing": smoothing}
    return base.finish(figure, chosen, state, ["x", "group", "smoothing", "log"])


def tokens_to_reach(runs: Any) -> Figure:
    """Draw the tokens each arm sees until its validation loss (mean over seeds) first falls to a value."""
    chosen = base.select(runs)
    notes = ["read upwards from a loss: the tokens each arm needs to get there for the first time"]
    figure = base.new_figure("Tokens to reach a loss", notes + chosen.notes, chosen.panels)
    for group, members in chosen.groups.items():
        spec = {"runs": [run.key for run in members], "kind": "eval", "column": "loss", "smooth": False, "stat": "mean"}
        tokens, loss = trace_values(spec, {run.key: run.series for run in members}, STATE | {"x": "tokens"})
        best = np.fmin.accumulate(loss) if len(loss) else loss
        first = np.flatnonzero(np.isfinite(loss) & (np.diff(best, prepend=math.inf) < 0))
        name, line = _counted(chosen.names[group], len(members)), {"color": chosen.colours[group], "width": 2.2}
        x, y = loss[first].round(5).tolist(), tokens[first].tolist()
        trace = go.Scatter(x=x, y=y, name=escape(name), line=line, mode="lines+markers", marker=_marker(0))
        base.add(figure, chosen.row(group), trace)
    figure.update_xaxes(autorange="reversed", rangemode="normal")
    figure.update_yaxes(title_text="tokens seen", rangemode="tozero")
    list(figure.select_xaxes())[-1].title.text = Y_TITLES["loss"]
    return figure


def final_perplexity(runs: Any, metric: str = "final_val_loss") -> Figure:
    """Draw each arm's perplexity: its seeds, their mean and its 95 % interval, and 1.05 x the baseline's.

    Args:
        runs: Frame of tables.load_runs, of tables.recorded, or both.
        metric: A column of losses.
    """
    done = frames.comparable(runs, metric)
    panels = {key: rows for key, rows in done.groupby(["corpus", "tokenizer"], sort=False)}
    height = 60 + 44 * max((rows["variant"].nunique() for rows in panels.values()), default=2)
    notes = ["ticks: seeds; dot: their mean with a 95 % t-interval; dashed: 1.05 x baseline"]
    figure = base.new_figure("Perplexity", notes, [", ".join(key) for key in panels], height=height)
    for row, rows in enumerate(panels.values(), 1):
        _perplexity_panel(figure, row, rows, metric)
    figure.update_xaxes(rangemode="normal")
    figure.update_layout(showlegend=False)
    list(figure.select_xaxes())[-1].title.text = "perplexity"
    return figure


def _perplexity_panel(figure: Figure, row: int, rows: Any, metric: str) -> None:
    variants = [group for _, group in rows.groupby("variant", sort=False)]
    names = [f"{group['arm'].iloc[0]}<br>{_variant(group)}, n = {len(group)}" for group in variants]
    colours = arm_colours(rows["arm"])
    for name, group in zip(names, variants, strict=True):
        colour, losses = colours[group["arm"].iloc[0]], group[metric].to_numpy()
        interval = statistics.paired_interval(losses)
        mean, low, high = np.exp([interval.mean, interval.low, interval.high])
        seeds = {"color": colour, "size": 14, "symbol": "line-ns-open", "line_width": 2}
        x, y = np.exp(losses).round(5).tolist(), [name] * len(losses)
        base.add(figure, row, go.Scatter(x=x, y=y, mode="markers", marker=seeds, name=f"{name} seeds", hoverinfo="x"))
        bar = {"array": [high - mean], "arrayminus": [mean - low], "symmetric": False, "thickness": 2, "width": 0}
        point = {"mode": "markers", "marker": {"color": colour, "size": 11}, "name": f"{name} mean"}
        base.add(
            figure, row, go.Scatter(x=[mean], y=[name], error_x=bar if interval.known else None, hoverinfo="x", **point)
        )
        if group["arm"].iloc[0] == "baseline":
            line = {"dash": "dash", "width": 1.5, "color": base.INK}
            figure.add_vline(x=statistics.CRITERION * mean, line=line, row=row, col=1)
    figure.update_yaxes(categoryorder="array", categoryarray=names[::-1], row=row, col=1)
    figure.update_yaxes(range=[-0.6, len(names) - 0.4], showgrid=False, row=row, col=1)


def time_budget(runs: Any) -> Figure:
    """Draw where the wall time of each done run went; `runs` is a frame of tables.load_runs."""
    spent = tables.time_budget(runs)
    longest = spent["wall_seconds"].max() if len(spent) else 0
    unit, seconds = next((u for u in (("hours", 3600), ("minutes", 60)) if longest > 2 * u[1]), ("seconds", 1))
    height = 40 + 24 * max(len(spent), 3)
    figure = base.new_figure("Where the time went", ["wall time of each run"], ["all"] * bool(len(spent)), height)
    names = [
        f"{row.arm} · {row.run}" if len(set(spent["corpus"])) > 1 else f"{row.arm} · seed {row.seed}"
        for row in spent.itertuples()
    ]
    for part, colour in BUDGET.items() if len(spent) else ():
        x = (spent[part].fillna(0) / seconds).round(5).tolist()
        base.add(figure, 1, go.Bar(x=x, y=names, name=part.replace("_", " "), orientation="h", marker_color=colour))
    figure.update_layout(barmode="stack", bargap=0.3, legend_traceorder="normal")
    figure.update_xaxes(title_text=unit)
    figure.update_yaxes(categoryorder="array", categoryarray=names[::-1], showgrid=False)
    return figure


def _state(chosen: Selection, group: str | None) -> dict[str, Any]:
    single = all(len(members) == 1 for members in chosen.groups.values())
    return STATE | {"group": group or ("seed" if single else "arm")}


def _lines(chosen: Selection) -> list[tuple[int, str, str, dict[str, Any]]]:
    """(panel row, name, colour, runs and grouping) of every line: one for each group, then one for each of its runs."""
    found = []
    for group, members in chosen.groups.items():
        row, name, colour = chosen.row(group), chosen.names[group], chosen.colours[group]
        by = {"runs": [run.key for run in members], "group": "arm", "nth": 0}
        found.append((row, _counted(name, len(members)), colour, by))
        for nth, run in enumerate(members):
            found.append((row, f"{name} · seed {run.seed}", colour, {"runs": [run.key], "group": "seed", "nth": nth}))
    return found


def _marker(nth: int) -> dict[str, Any]:
    return {"symbol": SYMBOLS[nth % len(SYMBOLS)], "size": 6, "maxdisplayed": 25}


def _counted(name: str, number: int) -> str:
    return name if number == 1 else f"{name} (mean of {number})"


def _variant(rows: Any) -> str:
    return str(rows["id"].iloc[0] if rows["source"].iloc[0] == frames.MEASURED else rows["variant"].iloc[0])


def _recorded(chosen: Selection) -> dict[str, tuple[str, str, dict]]:
    """Key -> (panel, arm, series) of the log's points on the complete corpora that are drawn."""
    complete = {run.panel for run in chosen.runs if run.complete}
    found = {}
    for row in frames.recorded().itertuples():
        panel = f"{row.corpus}, {row.tokenizer}"
        if panel in complete:
            points = [(point["step"], None, math.log(point["perplexity"])) for point in row.timing["evaluations"]]
            points.append((int(row.steps), row.wall_seconds, row.final_val_loss))
            step, seconds, loss = zip(*points, strict=True)
            series = {"train": {}, "eval": {"step": step, "seconds": seconds, "loss": loss}}
            series |= {"step_tokens": row.tokens / row.steps, "epoch_tokens": row.tokens / row.epochs}
            found[row.run] = (panel, row.arm, series)
    return found
