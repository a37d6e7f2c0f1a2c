"""Figures of explore.ipynb: measures, heads, depth, spectra, losses; a colour an arm."""

import textwrap
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from oelm_lib.arms import arm_colour
from oelm_lib.explore.arms import arm_of, run_label, runs_by_arm
from oelm_lib.explore.attention import ROLES, STRONG, head_table, spectrum
from oelm_lib.explore.probes import PROBES, probe_values
from oelm_lib.explore.windows import window_losses
from oelm_lib.runs import read_logit_std
from oelm_lib.training.trained import Trained
from oelm_lib.view.figure import INK, Figure, add_trace, new_figure, plotly_text, title_x

NAME_LINE = 24
"""Characters of a line of an arm's name beside a small figure."""
BINS = 16
"""Parts of the window in the figure of the loss by position."""
HEAD_ROLES = {key: f"{words} (random tokens, twice)" for key, words in ROLES.items()} | {
    "copying_in_text": "keys that hold the next token (text)"
}


def probe_panels(runs: Sequence[Trained]) -> list[Figure]:
    """Return one small figure per probe: a dot per seed, a line per arm."""
    table = probe_values(runs)
    return [
        _probe_panel(runs, dict(zip(runs, table[key], strict=True)), key)
        for key in PROBES
        if key in table
    ]


def _probe_panel(runs: Sequence[Trained], values: dict[Trained, float], key: str) -> Figure:
    grouped = runs_by_arm(runs)
    figure = new_figure(PROBES[key].title, [PROBES[key].meaning], [""], 20 + 26 * len(grouped))
    for name, members in grouped.items():
        dots = go.Scatter(
            x=[float(f"{values[run]:.4g}") for run in members],
            y=[plotly_text(name)] * len(members),
            text=[f"seed {run.seed}" for run in members],
            name=plotly_text(name),
            mode="markers",
            marker={"size": 10, "opacity": 0.8, "color": arm_colour(arm_of(members[0]))},
            hovertemplate="%{y}, %{text}: %{x}<extra></extra>",
        )
        add_trace(figure, 1, dots)
    names = [plotly_text(name) for name in grouped]
    figure.update_yaxes(autorange="reversed", showgrid=False)
    figure.update_yaxes(tickvals=names, ticktext=[_name_lines(name) for name in grouped])
    figure.update_xaxes(rangemode="normal", nticks=4, tickangle=0)
    return figure.update_layout(showlegend=False, margin_b=40)


def _name_lines(name: str) -> str:
    """Return an arm's name in at most two lines, which leave room for the dots."""
    lines = textwrap.wrap(name, NAME_LINE, max_lines=2, placeholder="...")
    return "<br>".join(map(plotly_text, lines))


def head_scores(runs: Sequence[Trained]) -> Figure:
    """Draw the share that each head gives in each role; definitions in explore.measures."""
    notes = [
        f"each mark is a head, layer by layer; above {STRONG:g} (dashed) a head has the role;"
        " higher is better for copying"
    ]
    figure = new_figure("Roles of heads", notes, list(HEAD_ROLES.values()), height=170)
    grouped, tables = runs_by_arm(runs), {run: head_table(run) for run in runs}
    places = sorted({place for table in tables.values() for place in _places(table)})
    ticks = [f"{layer}.{head}" for layer, head in places]
    for drawn in _drawn_runs(runs):
        heads = tables[drawn.run]
        x = np.array([places.index(place) for place in _places(heads)])
        offset = 0.6 * ((list(grouped).index(drawn.arm) + 0.5) / len(grouped) - 0.5)
        hover = f"{plotly_text(run_label(drawn.run))}<br>%{{text}}: %{{y:.3f}}<extra></extra>"
        marks = {
            "mode": "markers",
            "marker": {"color": drawn.colour, "size": 9, "opacity": 0.85},
            "text": [f"{layer}.{head}" for layer, head in _places(heads)],
            "hovertemplate": hover,
        }
        for row, role in enumerate(HEAD_ROLES, 1):
            _add_run(figure, row, drawn, x + offset, heads[role], **marks)
    figure.add_hline(y=STRONG, line={"dash": "dash", "width": 1.2, "color": INK})
    figure.update_yaxes(title_text="share", rangemode="tozero")
    figure.update_xaxes(
        tickvals=list(range(len(ticks))), ticktext=ticks, showgrid=False, rangemode="normal"
    )
    return title_x(figure, "layer.head")


def _places(heads: pd.DataFrame) -> list[tuple[int, int]]:
    """Return layer and head of each row of a head_table."""
    return list(zip(heads["layer"].tolist(), heads["head"].tolist(), strict=True))


def depth(runs: Sequence[Trained]) -> Figure:
    """Draw entropy and logit std over depth: lines are means over heads, dots heads."""
    panels = {
        "entropy": "normalised entropy (1: uniform)",
        "logit_std": "logit std: standard deviation of attention scores",
    }
    notes = ["validation windows; lines: means over heads; dots: heads; neither way is good alone"]
    figure = new_figure("Over depth", notes, list(panels.values()), height=240)
    layers = 1
    for drawn in _drawn_runs(runs):
        heads = head_table(drawn.run)
        dots = {"mode": "markers", "marker": {"size": 5, "opacity": 0.5, "color": drawn.colour}}
        means = heads.groupby("layer")[list(panels)].mean()
        layers = max(layers, len(means))
        for row, key in enumerate(panels, 1):
            _add_run(figure, row, drawn, heads["layer"], heads[key], showlegend=False, **dots)
            _add_run(figure, row, drawn, means.index, means[key])
    figure.update_xaxes(dtick=1, range=[-0.2, layers - 0.8])
    return _finished(figure, "layer")


def spectra(runs: Sequence[Trained]) -> Figure:
    """Draw the singular values of each head's Q/K form, a panel per layer."""
    values = {run: spectrum(run) for run in runs}
    panels = [f"layer {layer}" for layer in range(max(map(len, values.values())))]
    notes = [
        "diag(g) W_q^T W_k diag(g), g the LayerNorm's gain; lines: means over heads; thin: heads;"
        " a flat line compares all directions alike"
    ]
    figure = new_figure("Spectra of the Q/K forms", notes, panels, height=200)
    for drawn in _drawn_runs(runs):
        places = np.arange(1, values[drawn.run].shape[-1] + 1)
        thin = {"line": {"width": 0.8, "color": drawn.colour}, "opacity": 0.4, "hoverinfo": "skip"}
        for row, layer in enumerate(values[drawn.run], 1):
            for head in layer:
                _add_run(figure, row, drawn, places, head, showlegend=False, **thin)
            _add_run(figure, row, drawn, places, layer.mean(0))
    return _finished(figure, "singular value, largest first")


def loss_by_position(runs: Sequence[Trained]) -> Figure:
    """Draw the loss, and the gap to the first arm, over BINS parts of the window."""
    notes = [
        f"validation windows in {BINS} parts; the lower panel: nats above {run_label(runs[0])};"
        " lower is better"
    ]
    figure = new_figure("Loss by position", notes, ["loss", "gap to the first arm"], height=240)
    reference = _loss_at_positions(runs[0])
    parts = np.array_split(np.arange(len(reference)), min(BINS, len(reference)))
    middles = [part.mean() for part in parts]
    for drawn in _drawn_runs(runs):
        losses = _loss_at_positions(drawn.run)
        for row, values in ((1, losses), (2, losses - reference)):
            means = [float(np.ma.filled(values[part].mean(), np.nan)) for part in parts]
            _add_run(figure, row, drawn, middles, means, mode="lines+markers", marker_size=5)
    figure.update_yaxes(title_text="nats per token")
    return _finished(figure, "position in the window", "normal")


def _loss_at_positions(run: Trained) -> np.ma.MaskedArray:
    """Return the mean loss (T,) of the scored tokens at each position; masked where none is."""
    return np.ma.masked_invalid(window_losses(run)[1]).mean(0)


def logit_spread(runs: Sequence[Trained]) -> Figure:
    """Draw logit std over training, a panel per layer, of runs that recorded it."""
    tables = {run: read_logit_std(run.path) for run in runs}
    layers = sorted({layer for table in tables.values() for layer in table["layer"]})
    notes = ["one validation window at each evaluation; the mean of a layer's heads"]
    figure = new_figure(
        "Logit std over training", notes, [f"layer {n}" for n in layers], height=170
    )
    for drawn in _drawn_runs(runs):
        for layer, points in tables[drawn.run].groupby("layer"):
            row = layers.index(layer) + 1
            _add_run(figure, row, drawn, points["step"], points["logit_std"])
    return _finished(figure, "step" if layers else "")


class _Drawn(NamedTuple):
    """A run as the figures draw it: under the name and in the colour of its arm."""

    arm: str
    run: Trained
    colour: str
    is_first: bool
    """Whether it is the arm's first run, which stands in the legend."""


def _drawn_runs(runs: Sequence[Trained]) -> list[_Drawn]:
    """Return all runs, those of an arm one after another."""
    return [
        _Drawn(arm, run, arm_colour(arm_of(run)), run is members[0])
        for arm, members in runs_by_arm(runs).items()
        for run in members
    ]


def _add_run(figure: Figure, row: int, drawn: _Drawn, x: Any, y: Any, **look: Any) -> None:
    """Add a run to a panel, as a line unless `look` says otherwise: properties of the trace."""
    properties = {
        "mode": "lines",
        "line": {"color": drawn.colour, "width": 2.2},
        "showlegend": row == 1 and drawn.is_first,
    }
    trace = go.Scatter(
        x=np.round(x, 3).tolist(),
        y=np.round(y, 4).tolist(),
        name=plotly_text(drawn.arm),
        legendgroup=drawn.arm,
        **properties | look,
    )
    add_trace(figure, row, trace)


def _finished(figure: Figure, title: str, rangemode: str = "tozero") -> Figure:
    return title_x(figure, title).update_yaxes(rangemode=rangemode)
