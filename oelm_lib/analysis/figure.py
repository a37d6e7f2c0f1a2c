"""What all figures share: the runs they draw, their look, and what the page controller needs."""

import json
import math
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from html import escape
from typing import Any

import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from oelm_lib.analysis.arms import arm_colours, arm_name
from oelm_lib.analysis.frames import MEASURED
from oelm_lib.analysis.series import run_series, trace_values
from oelm_lib.errors import UserError
from oelm_lib.runs import reading

MIMETYPE = "application/vnd.plotly.v1+json"
CONFIG = {
    "displaylogo": False,
    "showSendToCloud": False,
    "responsive": True,
    "modeBarButtonsToRemove": ["lasso2d", "select2d", "toImage"],
}
INK, GRID = "#7a7a7a", "rgba(128,128,128,0.22)"
"""Readable on white and on near-black; the page replaces them by the theme's own."""
FONT = "system-ui, 'Segoe UI', 'Helvetica Neue', 'Liberation Sans', sans-serif"
X_TITLES = {"step": "step", "tokens": "tokens seen", "hours": "hours since start", "epochs": "epochs"}


class Figure(go.Figure):
    """A plotly figure that says how to read it where plotly's mimetype is not shown (plain nbconvert, GitHub)."""

    def _repr_mimebundle_(self, include=None, exclude=None, **kwargs) -> dict[str, Any]:
        plain = json.loads(self.to_json())
        title = escape(self.layout.title.text or "figure")
        note = (
            f"<p><em>Interactive figure: {title}. For a page that shows it: <code>oelm report X.ipynb</code></em></p>"
        )
        return {MIMETYPE: plain | {"config": CONFIG}, "text/html": note, "text/plain": f"Figure: {title}"}

    def _ipython_display_(self) -> None:
        from IPython.display import display

        display(self._repr_mimebundle_(), raw=True)


@dataclass(frozen=True)
class Drawn:
    """A run that can be drawn."""

    key: str
    """<folder>/seed<k>, the run's name in the page's rows."""
    group: str
    """Folder of the experiment (or rehearsal): runs that differ in the seed only."""
    seed: int
    arm: str
    panel: str
    """Corpus and tokenizer: losses over different ones share no axis."""
    series: dict[str, Any]
    complete: bool = True
    """False for a sample of a corpus."""


@dataclass(frozen=True)
class Selection:
    """The runs of a figure, and a line for each that is not drawn, or not whole."""

    runs: list[Drawn]
    notes: list[str]

    @cached_property
    def panels(self) -> list[str]:
        """Corpus and tokenizer of each panel, from the top."""
        return list(dict.fromkeys(run.panel for run in self.runs))

    @cached_property
    def groups(self) -> dict[str, list[Drawn]]:
        """Group -> its runs."""
        groups: dict[str, list[Drawn]] = {}
        for run in self.runs:
            groups.setdefault(run.group, []).append(run)
        return groups

    @cached_property
    def names(self) -> dict[str, str]:
        """Group -> name in legends: the arm, and the folder where two groups of a corpus are one arm."""
        first = {group: runs[0] for group, runs in self.groups.items()}
        arms = [(run.panel, run.arm) for run in first.values()]
        return {g: r.arm if arms.count((r.panel, r.arm)) == 1 else f"{r.arm} · {g}" for g, r in first.items()}

    @cached_property
    def colours(self) -> dict[str, str]:
        """Group -> colour of its arm."""
        colours = arm_colours(run.arm for run in self.runs)
        return {group: colours[runs[0].arm] for group, runs in self.groups.items()}

    def row(self, group: str) -> int:
        """Number of a group's panel, from 1."""
        return self.panels.index(self.groups[group][0].panel) + 1


def select(runs: Any) -> Selection:
    """Read what there is to draw.

    Args:
        runs: A run (anything with `.path`, or a path), an iterable of runs, or a frame of tables.load_runs.
    """
    if isinstance(runs, pd.DataFrame):
        runs = runs.loc[runs["source"] == MEASURED, "path"]
    runs = [runs] if isinstance(runs, str) or not isinstance(runs, Iterable) else list(runs)
    drawn, notes = [], []
    for run in runs:
        path = reading.folder(run)
        key = f"{path.parent.name}/{path.name}"
        try:
            plain, series = reading.read_config(path), run_series(path)
        except UserError as error:
            notes.append(f"{key}: {str(error).replace(str(path), '').lstrip('/: ')}")
            continue
        if not series["train"]["step"] and not series["eval"]["step"]:
            notes.append(f"{key}: no rows yet")
            continue
        lost = [
            step for step, loss in zip(series["train"]["step"], series["train"]["loss"], strict=True) if loss is None
        ]
        if lost:
            notes.append(f"{key}: loss is not a number at step {lost[0]:,} and {len(lost) - 1} later points")
        corpus = plain["corpus"]
        panel = f"{corpus['name']}, {corpus['tokenizer']}"
        arm = arm_name(plain["experiment"], plain["overrides"])
        drawn.append(Drawn(key, path.parent.name, plain["seed"], arm, panel, series, not corpus["sample"]))
    return Selection(drawn, notes)


def new_figure(title: str, notes: list[str], panels: list[str], height: int = 320) -> Figure:
    """Lay out an empty figure of one panel a row, each `height` high; no panels: one that says so."""
    lines = [escape(line) for line in notes[:4]]
    lines += [f"and {len(notes) - 4} more runs"] if len(notes) > 4 else []
    rows = max(len(panels), 1)
    headings = panels if rows > 1 else None
    top, total = 66 + 19 * len(lines) + 14 * (rows > 1), height * rows
    figure = make_subplots(rows, 1, subplot_titles=headings, vertical_spacing=60 / total, figure=Figure())
    figure.update_annotations(x=0, xanchor="left", font_size=14)
    figure.update_layout(
        template="none",
        height=total + top + 60,
        title={
            "text": f"<b>{escape(title)}</b>",
            "subtitle": {"text": "<br>".join(lines), "font": {"size": 12.5}},
            "x": 0,
            "xref": "container",
            "y": 1,
            "yref": "container",
            "yanchor": "top",
            "pad": {"t": 10, "l": 4},
            "font": {"size": 17},
        },
        font={"family": FONT, "size": 13, "color": INK},
        margin={"l": 70, "r": 20, "t": top, "b": 60},
        paper_bgcolor="rgba(0,0,0,0)",
        plot_bgcolor="rgba(0,0,0,0)",
        showlegend=True,
    )
    for row, y_axis in enumerate(figure.select_yaxes(), 1):
        place = {"y": y_axis.domain[1], "yanchor": "top", "tracegroupgap": 1, "font_size": 12.5}
        figure.update_layout({_legend(row): place | {"groupclick": "togglegroup", "bgcolor": "rgba(0,0,0,0)"}})
    axis = {"gridcolor": GRID, "linecolor": GRID, "zeroline": False, "showline": True, "automargin": True}
    axis |= {"title_font_size": 13, "title_standoff": 8}
    figure.update_xaxes(**axis, ticks="outside", tickcolor=GRID, rangemode="tozero")
    figure.update_yaxes(**axis, hoverformat=".5~g")
    if not panels:
        figure.add_annotation(text="No run has rows yet.", showarrow=False, xref="paper", yref="paper", x=0.5, y=0.5)
        figure.update_xaxes(visible=False).update_yaxes(visible=False)
    return figure


def add(figure: Figure, row: int, trace: Any) -> None:
    """Add a trace to a panel and to the legend beside it."""
    trace.legend = _legend(row)
    figure.add_trace(trace, row=row, col=1)


def add_line(figure: Figure, row: int, spec: dict[str, Any], name: str, line: dict[str, Any], **more: Any) -> None:
    """Add a line that the page computes.

    Args:
        spec: As series.trace_values takes it, and `group`: the grouping it is shown in (arm, seed; None: always).
    """
    mode = "lines+markers" if "marker" in more else "lines"
    group = f"{row} {name} {spec['group']}"
    add(
        figure,
        row,
        go.Scatter(**{"name": escape(name), "meta": spec, "line": line, "legendgroup": group, "mode": mode} | more),
    )


def add_band(figure: Figure, row: int, spec: dict[str, Any], name: str, colour: str) -> None:
    """Fill from the least to the largest over a group's seeds."""
    red, green, blue = (int(colour[n : n + 2], 16) for n in (1, 3, 5))
    fill = {"showlegend": False, "hoverinfo": "skip", "fillcolor": f"rgba({red},{green},{blue},0.16)"}
    for stat, to in (("min", None), ("max", "tonexty")):
        add_line(figure, row, spec | {"stat": stat}, name, {"width": 0, "color": colour}, fill=to, **fill)


def finish(
    figure: Figure, chosen: Selection, state: dict[str, Any], controls: list[str], extra: dict[str, Any] | None = None
) -> Figure:
    """Compute the lines for `state`; hand the rows (and `extra` ones) and the choices to the page controller."""
    rows = {run.key: run.series for run in chosen.runs} | (extra or {})
    for trace in figure.data:
        x, y = trace_values(trace.meta, rows, state)
        trace.x, trace.y = _plain(x), _plain(y)
        trace.visible = trace.meta["group"] in (state["group"], None)
    figure.update_layout(meta={"state": state, "controls": controls, "rows": rows})
    # Only the last: a panel's x title would stand in the way of the next panel's heading.
    list(figure.select_xaxes())[-1].title.text = X_TITLES[state["x"]]
    if "log" in controls:
        figure.update_yaxes(type="log" if state["log"] else "linear")
    return figure


def _legend(row: int) -> str:
    return "legend" if row == 1 else f"legend{row}"


def _plain(values: Iterable[float]) -> list[float | None]:
    return [float(f"{value:.7g}") if math.isfinite(value) else None for value in values]
