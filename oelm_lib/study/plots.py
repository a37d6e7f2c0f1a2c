"""Figures of a study: the gap over what is trained, the tuning fits, the ladder."""

import math
from html import escape

import numpy as np
import plotly.graph_objects as go

from oelm_lib.arms import arm_colours
from oelm_lib.stats import Interval, gap
from oelm_lib.study.cell import BASE_SIZE, Cell
from oelm_lib.study.page import Study
from oelm_lib.study.tuning import INTERIOR
from oelm_lib.study.verdicts import exploration
from oelm_lib.view import figure as base

NO_SHARE = 1e-4
"""Where an arm that trains none of the Q/K weights is drawn on the logarithmic axis."""
SHARES = {NO_SHARE: "0", 1e-3: "0.1 %", 1e-2: "1 %", 1e-1: "10 %", 1.0: "100 %"}
CURVE_POINTS = 41
MARGIN = 3.0
"""Room above and below the gaps of the first figure, in percent."""


def gaps(study: Study) -> base.Figure:
    """Draw the gap of every arm over the share of the Q/K weights that it trains, by corpus."""
    judged = [one for one in study.judgements if one.claim.at_most and one.interval.n]
    drawn = {one.corpus for one in judged} | {study.plan.corpora[0]}
    corpora = [name for name in study.plan.corpora if name in drawn]
    notes = [
        "in colour: confirmed on fresh seeds, with the interval of its verdict",
        "grey: tuned only (validation, first corpus); dashed: the limits that are claimed",
    ]
    figure = base.new_figure("What is trained, and what it costs", notes, corpora, height=380)
    colours = arm_colours({one.arm for one in judged})
    confirmed = {one.arm for one in judged if one.corpus == study.plan.corpora[0]}
    for arm, _, nats, share in exploration(study.grid):
        if nats is not None and arm not in confirmed:
            row = corpora.index(study.plan.corpora[0]) + 1
            base.add(figure, row, _point(arm, share, 100 * gap(nats), base.INK, None))
    shown: set[tuple[str, str]] = set()
    for one in judged:
        if (one.corpus, one.arm) in shown:
            continue
        shown.add((one.corpus, one.arm))
        bars = _bars(one.interval)
        trace = _point(one.arm, one.trained_share, 100 * one.interval.gap, colours[one.arm], bars)
        base.add(figure, corpora.index(one.corpus) + 1, trace)
    for limit in sorted({limit for one in judged for limit in one.claim.at_most}):
        line = {"dash": "dash", "width": 1.2, "color": base.INK}
        figure.add_hline(y=100 * limit, line=line)
    figure.update_xaxes(
        type="log",
        range=[math.log10(NO_SHARE) - 0.2, 0.3],
        rangemode="normal",
        tickvals=list(SHARES),
        ticktext=list(SHARES.values()),
    )
    drawn = [trace.y[0] for trace in figure.data]
    if drawn:  # a wide interval may leave the panel; it must not flatten the others
        room = MARGIN + 0.15 * (max(drawn) - min(drawn))
        figure.update_yaxes(range=[min(drawn) - room, max(drawn) + room])
    figure.update_yaxes(title_text="gap in perplexity (%)")
    return base.title_x(figure, "trained share of the Q/K weights")


def _point(
    arm: str, share: float, y: float, colour: str, bars: dict | None, symbol: str = "circle"
) -> go.Scatter:
    return go.Scatter(
        x=[max(share, NO_SHARE)],
        y=[round(y, 3)],
        error_y=bars,
        mode="markers",
        name=escape(arm),
        marker={
            "size": 10 if bars else 7,
            "color": colour,
            "symbol": symbol if bars else f"{symbol}-open",
        },
        showlegend=bars is not None,
        hovertemplate=f"{escape(arm)}<br>%{{y:+.2f}} %, {share:.2%} trained<extra></extra>",
    )


def _bars(interval: Interval) -> dict | None:
    if not interval.known:
        return {"array": [0.0]}
    return {
        "array": [100 * (interval.gap_high - interval.gap)],
        "arrayminus": [100 * (interval.gap - interval.gap_low)],
        "symmetric": False,
    }


def tuning(study: Study) -> base.Figure:
    """Draw the parabola of every cell over the learning rate, its points and its minimum."""
    cells = sorted({run.cell for run in study.grid.records if run.stage == "tune"}, key=str)
    panels = list(dict.fromkeys(_panel(cell) for cell in cells))
    notes = ["points: mean over the tuning seeds; star: the fitted minimum with its 95 % interval"]
    figure = base.new_figure("Tuned learning rates (validation)", notes, panels, height=380)
    colours = arm_colours({cell.arm for cell in cells})
    for cell in cells:
        row, colour = panels.index(_panel(cell)) + 1, colours[cell.arm]
        for trace in _fit_traces(study, cell, colour):
            base.add(figure, row, trace)
    figure.update_xaxes(type="log", rangemode="normal")
    figure.update_yaxes(title_text="loss (nats per token)")
    return base.title_x(figure, "peak learning rate")


def _panel(cell: Cell) -> str:
    return cell.corpus if cell.size == BASE_SIZE else f"{cell.corpus}, {cell.size}"


def _fit_traces(study: Study, cell: Cell, colour: str) -> list[go.Scatter]:
    """Points, curve and minimum of one cell."""
    losses: dict[float, list[float]] = {}
    for rate, _, loss in study.grid.tuning_points(cell):
        if loss is not None:
            losses.setdefault(rate, []).append(loss)
    rates = sorted(losses)
    group = {"legendgroup": cell.arm, "name": escape(cell.arm)}
    hover = f"{escape(cell.arm)}<br>%{{y:.4f}} at %{{x:.3g}}<extra></extra>"
    traces = [
        go.Scatter(
            x=rates,
            y=[round(float(np.mean(losses[rate])), 5) for rate in rates],
            mode="markers",
            marker={"size": 6, "color": colour},
            hovertemplate=hover,
            **group,
        )
    ]
    fit = study.grid.fit(cell)
    if fit.coefficients and fit.state == INTERIOR:
        a, b, c = fit.coefficients
        x = np.linspace(math.log2(rates[0]), math.log2(rates[-1]), CURVE_POINTS)
        curve = {"x": 2**x, "y": (a + b * x + c * x**2).round(5)}
        look = {"mode": "lines", "line": {"color": colour, "width": 1.3}, "hoverinfo": "skip"}
        traces.append(go.Scatter(**curve, **look, showlegend=False, **group))
        bars = None
        if math.isfinite(fit.low):
            bars = {
                "array": [fit.high - fit.rate],
                "arrayminus": [fit.rate - fit.low],
                "symmetric": False,
            }
        star = {"size": 11, "color": colour, "symbol": "star"}
        point = {"x": [fit.rate], "y": [round(fit.loss, 5)], "error_x": bars, "mode": "markers"}
        traces.append(
            go.Scatter(**point, marker=star, hovertemplate=hover, showlegend=False, **group)
        )
    return traces


def ladder(study: Study) -> base.Figure:
    """Draw the gap of the ladder's arms over the number of parameters."""
    slopes = [slope for slope in study.slopes if any(size[2].n for size in slope.sizes)]
    panels = list(dict.fromkeys(slope.corpus for slope in slopes))
    notes = ["95 % intervals of each size by itself; the verdict is of the slope over all sizes"]
    figure = base.new_figure("The gap over the size of the model", notes, panels, height=360)
    colours = arm_colours({slope.arm for slope in slopes})
    for slope in slopes:
        run = [size for size in slope.sizes if size[2].n]
        bars = [_bars(interval) for _, _, interval in run]
        trace = go.Scatter(
            x=[parameters for _, parameters, _ in run],
            y=[round(100 * interval.gap, 3) for _, _, interval in run],
            error_y={
                "array": [bar["array"][0] for bar in bars],
                "arrayminus": [bar.get("arrayminus", [0.0])[0] for bar in bars],
                "symmetric": False,
            },
            mode="lines+markers",
            name=escape(f"{slope.arm}: {slope.verdict}"),
            line={"color": colours[slope.arm]},
        )
        base.add(figure, panels.index(slope.corpus) + 1, trace)
    figure.update_xaxes(type="log", rangemode="normal")
    figure.update_yaxes(title_text="gap in perplexity (%)")
    return base.title_x(figure, "parameters of the baseline")
