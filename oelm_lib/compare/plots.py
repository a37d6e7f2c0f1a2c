"""Figures of a comparison: the gap with its verdict, the gap over training, tokens to a loss."""

import math
from collections.abc import Sequence
from itertools import groupby
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from oelm_lib import stats
from oelm_lib.arms import ArmStyle, arm_styles
from oelm_lib.compare.pairs import pairs
from oelm_lib.compare.verdict import LIMIT, Verdict
from oelm_lib.view import forest
from oelm_lib.view.curves import VAL, Y_TITLES, Line, lines, reader_state, series_of
from oelm_lib.view.figure import (
    INK,
    Figure,
    add_band,
    add_controls,
    add_line,
    add_trace,
    new_figure,
    plotly_text,
    title_x,
)
from oelm_lib.view.gaps import interval_text
from oelm_lib.view.selection import select
from oelm_lib.view.series import STATE, trace_values

LIMIT_PERCENT = 100 * LIMIT
LINES = {0.0: "baseline", LIMIT_PERCENT: f"limit +{LIMIT_PERCENT:g} %"}


def gap_intervals(verdicts: Sequence[Verdict]) -> Figure:
    """Draw each arm's gap with the interval its verdict is read from, its seeds, and the limit.

    One panel per baseline; an interval that leaves the panel is written in full in the arm's line.

    Args:
        verdicts: What judge returns.
    """
    drawn = [verdict for verdict in verdicts if math.isfinite(verdict.interval.gap)]
    styles = arm_styles([verdict.arm for verdict in verdicts])
    grouped = groupby(drawn, lambda verdict: (verdict.source, verdict.baseline))
    families = [list(arms) for _, arms in grouped]
    headings = [_heading(family[0]) for family in families]
    panels = [_forest_rows(family, styles) for family in families]
    notes = [
        "mark: gap; bar: 95 % interval, widened so that those of all arms hold together",
        "ticks: seeds, each paired with the same seed of the baseline",
    ]
    if len(headings) == 1:
        notes = [*headings, *notes]
    height = max(map(forest.panel_height, panels), default=0)
    figure = new_figure("Gap to the baseline", notes, headings, height)
    for number, rows in enumerate(panels, 1):
        forest.draw_rows(figure, number, rows, LINES)
    figure.update_layout(showlegend=False, margin_l=20)
    return title_x(figure, "gap in perplexity to the baseline")


def gap_curves(
    runs: pd.DataFrame, baseline: str | None = None, *, x: str = "step", group: str | None = None
) -> Figure:
    """Draw each arm's validation perplexity relative to its baseline, at equal x and seed.

    Args:
        runs: Frame of load_runs.
        baseline: As in judge.
        x, group: The reader's choices, as in series.STATE.
    """
    drawn, _ = select(runs)
    base_run: dict[str, str] = {}
    base_id: dict[str, str] = {}
    unpaired: list[str] = []
    for pair in pairs(drawn, baseline):
        paired = pair.run_names()
        base_run |= paired
        base_id |= dict.fromkeys(paired, pair.base_id)
        unpaired += [run for run in pair.arm["run"] if run not in paired]
    arm_runs = drawn[drawn["run"].isin(base_run)]
    if len(set(base_id.values())) > 1:
        names = arm_runs["name"] + " against " + arm_runs["run"].map(base_id)
        arm_runs = arm_runs.assign(name=names)
    notes = [
        "perplexity / baseline's perplexity - 1 at equal x and seed, on the validation subset;"
        " band: lowest to highest seed"
    ]
    notes += [f"{run}: no baseline with its seed" for run in unpaired]
    panels = list(arm_runs["panel"].unique())
    figure = new_figure("Gap to the baseline over training", notes, panels)
    for line in lines(arm_runs):
        spec = VAL | line.spec | {"base": [base_run[run] for run in line.spec["runs"]]}
        if line.spec["group"] == "arm":
            add_band(figure, line.row, spec, line.name, line.style.colour)
        add_line(figure, line.row, spec, line.name, line.stroke(2.2), marker=line.marker())
    if base_run:
        _add_limit(figure)
    figure.update_yaxes(title_text="gap in perplexity (%)")
    state = reader_state(arm_runs, group) | {"x": x}
    return add_controls(figure, series_of(drawn), state, ["x", "group"])


def tokens_to_reach(runs: Any) -> Figure:
    """Draw how many tokens each arm needs until its mean validation loss first falls to a value.

    Args:
        runs: As selection.select takes them.
    """
    drawn, problems = select(runs)
    notes = ["y: tokens that an arm needs until its mean validation loss first falls to x"]
    panels = list(drawn["panel"].unique())
    figure = new_figure("Tokens to reach a loss", notes + problems, panels)
    for line in lines(drawn):
        if line.spec["group"] == "arm":
            add_trace(figure, line.row, _first_reached(line, series_of(drawn)))
    figure.update_xaxes(autorange="reversed", rangemode="normal")
    figure.update_yaxes(title_text="tokens seen", rangemode="tozero")
    return title_x(figure, Y_TITLES["loss"])


def _first_reached(line: Line, rows: dict[str, Any]) -> go.Scatter:
    """Return the tokens at each new least loss of a line."""
    tokens, loss = trace_values(VAL | line.spec, rows, STATE | {"x": "tokens"})
    first = np.flatnonzero(np.diff(np.fmin.accumulate(loss), prepend=math.inf) < 0)
    return go.Scatter(
        x=loss[first].round(5).tolist(),
        y=tokens[first].tolist(),
        name=plotly_text(line.name),
        line=line.stroke(2.2),
        marker=line.marker(),
        mode="lines+markers",
    )


def _heading(verdict: Verdict) -> str:
    first = verdict.pair.base.iloc[0]
    return f"{first['corpus']}, {first['tokenizer']}: against {first['arm']} ({verdict.baseline})"


def _forest_rows(family: list[Verdict], styles: dict[str, ArmStyle]) -> list[forest.Row]:
    """Return the arms of one baseline as rows, each with its interval and its seeds."""
    with_id = len({verdict.arm for verdict in family}) < len(family)
    rows = []
    for verdict in family:
        style = styles[verdict.arm]
        mark = forest.Mark(
            name=f"{verdict.arm} ({verdict.id})",
            interval=verdict.interval,
            colour=style.colour,
            symbol=style.symbol,
            seeds=_seed_gaps(verdict),
        )
        rows.append(forest.Row(_label(verdict, with_id), [mark], (LIMIT_PERCENT,)))
    return rows


def _seed_gaps(verdict: Verdict) -> tuple[float, ...]:
    """Return the gap of each seed, in percent."""
    gaps = [100 * stats.gap(nats) for nats in verdict.pair.differences()]
    return tuple(round(gap, 4) for gap in gaps if math.isfinite(gap))


def _label(verdict: Verdict, with_id: bool) -> str:
    """Return an arm's two lines over its interval."""
    name = f"{verdict.arm} ({verdict.id})" if with_id else verdict.arm
    return f"<b>{plotly_text(name)}</b><br>{interval_text(verdict.interval)}: {verdict.verdict}"


def _add_limit(figure: Figure) -> None:
    """Draw the limit, labelled, and the baseline across every panel."""
    line = {"width": 1.4, "color": INK}
    figure.add_hline(y=0, line=line)
    figure.add_hline(
        y=LIMIT_PERCENT,
        line=line | {"dash": "dash"},
        annotation_text=LINES[LIMIT_PERCENT],
        annotation_position="top right",
        annotation_yshift=1,
    )
