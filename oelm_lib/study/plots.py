"""Figures of a study: the gaps, the tuning fits, the ladder."""

import itertools
import math
from collections.abc import Iterable
from typing import Any

import numpy as np
import plotly.graph_objects as go

from oelm_lib.arms import ArmStyle, arm_styles, log_name
from oelm_lib.stats import Interval
from oelm_lib.study.cell import BASE_SIZE, TUNE, Cell
from oelm_lib.study.ladder import SizeGap, Slope
from oelm_lib.study.study import Study
from oelm_lib.study.tuning import INTERIOR
from oelm_lib.study.verdicts import Judgement
from oelm_lib.units import format_millions, significant
from oelm_lib.view import forest
from oelm_lib.view.figure import INK, Figure, add_trace, new_figure, plotly_text, title_x
from oelm_lib.view.tones import verdict_mark

CURVE_POINTS = 41
MOST_NAMES = 12
"""Names in a legend beside a panel of 300 pixels."""


def gaps(study: Study) -> Figure:
    """Draw the gap of each main comparison on each corpus, as the first table has them."""
    _, table = study.main_table()
    table = [
        [judgement for judgement in row if judgement and judgement.interval.n] for row in table
    ]
    table = [row for row in table if row]
    styles = _styles(study, {judgement.arm for row in table for judgement in row})
    rows = [_forest_row(row, styles[row[0].arm].colour) for row in table]
    limits = {bound: f"+{bound:g} %" for row in rows for bound in row.limits if bound > 0}
    names = {0.0: "baseline"} | limits
    notes = [
        "dot: gap; bar: confidence interval (95 % for one family of claims on one corpus)",
        "✓ within the limit, ✗ beyond it, ? undecided; late: claimed after results",
        "in brackets: numbers trained on the way to attention scores, in % of the Q/K weights",
    ]
    figure = new_figure(
        "Gap in perplexity to the baseline", notes, [""] if rows else [], forest.panel_height(rows)
    )
    figure.update_layout(showlegend=False)
    if not rows:
        return figure
    forest.draw_rows(figure, 1, rows, names)
    return title_x(figure, "gap in perplexity to the baseline")


def _forest_row(judgements: list[Judgement], colour: str) -> forest.Row:
    """Return a comparison with its gap on each corpus."""
    first = judgements[0]
    against = f"against {first.against}"
    share = f" ({significant(100 * first.trained_share, 2)} %)"
    marks = [
        forest.Mark(
            name=f"{judgement.arm} {against}, {judgement.corpus}",
            interval=judgement.interval,
            colour=colour,
            symbol="circle",
            label=judgement.corpus,
            note=_note(judgement),
        )
        for judgement in judgements
    ]
    bounds = {100 * limit.bound for limit in first.limits}
    if first.claim.equal:
        bounds |= {-bound for bound in bounds}
    text = f"<b>{plotly_text(first.arm)}</b>{share}<br>{plotly_text(against)}"
    return forest.Row(text, marks, tuple(sorted(bounds)))


def _note(judgement: Judgement) -> str:
    """Return the verdicts of a judgement as marks: `≤ 5 % ✓, ≤ 1 % ?, late`."""
    if not judgement.is_complete:
        return f"{judgement.ended} of {judgement.planned} seeds"
    marks = [f"{limit.short_text} {verdict_mark(limit.verdict)}" for limit in judgement.limits]
    return ", ".join(marks if judgement.declared else [*marks, "late"])


def behind(study: Study) -> list[Figure]:
    """Return the figures of the tuning fits and of the ladder that have something to draw."""
    return [figure for figure in (tuning(study), ladder(study)) if figure.data]


def tuning(study: Study) -> Figure:
    """Draw the parabola of every cell over the learning rate, its points and its minimum."""
    tuned = {run.cell for run in study.grid.records if run.stage == TUNE}
    plan = study.plan
    panels: dict[str, list[Cell]] = {}
    for place in itertools.product(plan.corpora, plan.sizes, plan.arms):
        cell = Cell(*place)
        if cell in tuned:
            panels.setdefault(cell.place, []).append(cell)
    notes = [
        "points: mean over the tuning seeds; curve: fitted to the rates near the best one",
        "star: the fitted minimum with its 95 % interval (no bar: unbounded)",
    ]
    names = max(map(len, panels.values()), default=0)
    height = 300 + 22 * max(0, names - MOST_NAMES)
    figure = new_figure("Tuned learning rates (validation)", notes, list(panels), height)
    styles = _styles(study, {cell.arm for cell in tuned})
    ticks = [step * 10.0**power for power in range(-7, 2) for step in (1, 2, 5)]
    labels = [f"{rate:g}" for rate in ticks]
    figure.update_xaxes(type="log", rangemode="normal", tickvals=ticks, ticktext=labels)
    for row, drawn in enumerate(panels.values(), 1):
        for cell in drawn:
            for trace in _fit_traces(study, cell, styles[cell.arm]):
                add_trace(figure, row, trace)
        rates = [rate for cell in drawn for rate, _, _ in study.grid.tuning_points(cell)]
        room = [math.log10(min(rates)) - 0.05, math.log10(max(rates)) + 0.05]
        figure.update_xaxes(range=room, row=row, col=1)  # an interval may leave the panel
    figure.update_yaxes(title_text="loss (nats per token)")
    return title_x(figure, "peak learning rate")


def _fit_traces(study: Study, cell: Cell, style: ArmStyle) -> list[go.Scatter]:
    """Return the points, curve and minimum of one cell."""
    losses: dict[float, list[float]] = {}
    for rate, _, loss in study.grid.tuning_points(cell):
        if loss is not None:
            losses.setdefault(rate, []).append(loss)
    rates = sorted(losses)
    group = {"legendgroup": cell.arm, "name": plotly_text(cell.arm)}
    hover = f"{plotly_text(cell.arm)}<br>%{{y:.4f}} at %{{x:.3g}}<extra></extra>"
    points = go.Scatter(
        x=rates,
        y=[round(float(np.mean(losses[rate])), 5) for rate in rates],
        mode="markers",
        marker={"size": 6, "color": style.colour, "symbol": style.symbol},
        hovertemplate=hover,
        **group,
    )
    fit = study.grid.fit(cell)
    if fit.state != INTERIOR:
        return [points]
    tried = np.geomspace(rates[0], rates[-1], CURVE_POINTS)
    curve = go.Scatter(
        x=tried,
        y=[round(fit.loss + fit.cost(rate), 5) for rate in tried],
        mode="lines",
        line={"color": style.colour, "width": 1.3, "dash": style.dash},
        hoverinfo="skip",
        showlegend=False,
        **group,
    )
    bar = {
        "array": [fit.high - fit.rate],
        "arrayminus": [fit.rate - fit.low],
        "symmetric": False,
        "thickness": 1,
    }
    minimum = go.Scatter(
        x=[fit.rate],
        y=[round(fit.loss, 5)],
        error_x=bar if math.isfinite(fit.low) else None,
        mode="markers",
        marker={"size": 12, "color": style.colour, "symbol": "star"},
        hovertemplate=hover,
        showlegend=False,
        **group,
    )
    return [points, curve, minimum]


def ladder(study: Study) -> Figure:
    """Draw the gap of the ladder's arms over the number of parameters, from two sizes on."""
    slopes = [slope for slope in study.slopes if len(_sizes(slope)) > 1]
    panels = list(dict.fromkeys(slope.corpus for slope in slopes))
    notes = ["95 % intervals of each size by itself; the verdict is of the slope over all sizes"]
    figure = new_figure("Gap over the size of the model", notes, panels, height=300)
    styles = _styles(study, {slope.arm for slope in slopes})
    for slope in slopes:
        _, parameters, intervals = zip(*_sizes(slope), strict=True)
        trace = go.Scatter(
            x=parameters,
            y=[round(100 * interval.gap, 3) for interval in intervals],
            error_y=_bars(intervals),
            mode="lines+markers",
            name=plotly_text(f"{slope.arm}: {slope.verdict}{slope.late_mark}"),
            line={"color": styles[slope.arm].colour},
            marker={"symbol": styles[slope.arm].symbol, "size": 9},
        )
        add_trace(figure, panels.index(slope.corpus) + 1, trace)
    counts = {count for slope in slopes for _, count, _ in _sizes(slope)}
    ticks = {f"{format_millions(count)} M": count for count in sorted(counts)}
    figure.update_xaxes(
        type="log",
        rangemode="normal",
        tickvals=list(ticks.values()),
        ticktext=list(ticks),
    )
    figure.update_yaxes(title_text="gap in perplexity (%)")
    if slopes:
        intervals = [interval for slope in slopes for _, _, interval in _sizes(slope)]
        limits = {100 * limit for claim in study.plan.claims for limit in claim.at_most or ()}
        _set_gap_axis(figure, intervals, sorted(limits))
    return title_x(figure, "parameters of the baseline")


def _sizes(slope: Slope) -> list[SizeGap]:
    """Return the sizes of a slope that have a seed."""
    return [size_gap for size_gap in slope.sizes if size_gap.interval.n]


def _bars(intervals: Iterable[Interval]) -> dict[str, Any]:
    """Return plotly's error bars of gaps in percent, of no length where an interval is unknown."""
    return {
        "array": [
            100 * (interval.gap_high - interval.gap) if interval.known else 0.0
            for interval in intervals
        ],
        "arrayminus": [
            100 * (interval.gap - interval.gap_low) if interval.known else 0.0
            for interval in intervals
        ],
        "symmetric": False,
    }


def _set_gap_axis(figure: Figure, intervals: list[Interval], limits: list[float]) -> None:
    """Draw 0 and the limits as lines, and let the axes of the gap hold them and the intervals.

    A wide interval may leave the panel; it must not flatten the others.

    Args:
        limits: In percent, ascending.
    """
    marks = [0.0, *limits, *(100 * interval.gap for interval in intervals)]
    reach = 3 * max(map(abs, marks))
    ends = [
        100 * end
        for interval in intervals
        if interval.known
        for end in (interval.gap_low, interval.gap_high)
    ]
    drawn = [*marks, *np.clip(ends, -reach, reach)]
    span = max(drawn) - min(drawn)
    room = 1.0 + 0.08 * span
    figure.update_yaxes(range=[min(drawn) - room, max(drawn) + room])
    figure.add_hline(y=0, line={"width": 1.2, "color": INK})
    for limit in limits:
        line = {"dash": "dash", "width": 1.2, "color": INK}
        label = {"text": f"+{limit:g} %", "font_size": 11}
        is_crowded = any(0 < other - limit < 0.09 * span for other in limits)
        side = "bottom right" if is_crowded else "top right"
        figure.add_hline(y=limit, line=line, annotation=label, annotation_position=side)


def _styles(study: Study, arms: set[str]) -> dict[str, ArmStyle]:
    """Return the style of each arm; the first that is one of the log's has that one's style."""
    plan = study.plan
    names: dict[str, str] = {}
    for arm in [name for name in plan.arms if name in arms]:
        cell = Cell(plan.corpora[0], BASE_SIZE, arm)
        name = log_name(plan.config(cell).model)
        names[arm] = name if name and name not in names.values() else arm
    styles = arm_styles(names.values())
    return {arm: styles[name] for arm, name in names.items()}
