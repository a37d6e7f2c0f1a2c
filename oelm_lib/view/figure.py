"""What all figures share: the runs they draw, their look, and what the page controller needs."""

import json
from html import escape
from typing import Any

import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from oelm_lib.arms import arm_colours
from oelm_lib.config import Experiment
from oelm_lib.errors import UserError
from oelm_lib.runs import frames, reading
from oelm_lib.view.series import run_series, trace_values

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
X_TITLES = {
    "step": "step",
    "tokens": "tokens seen",
    "hours": "hours since start",
    "epochs": "epochs",
}


class Figure(go.Figure):
    """A plotly figure that says how to read it where plotly's mimetype is not shown (plain nbconvert, GitHub)."""

    def _repr_mimebundle_(self, include=None, exclude=None, **kwargs) -> dict[str, Any]:
        plain = json.loads(self.to_json())
        title = escape(self.layout.title.text or "figure")
        note = f"<p><em>Interactive figure: {title}. For a page that shows it: <code>oelm report X.ipynb</code></em></p>"
        return {
            MIMETYPE: plain | {"config": CONFIG},
            "text/html": note,
            "text/plain": f"Figure: {title}",
        }

    def _ipython_display_(self) -> None:
        from IPython.display import display

        display(self._repr_mimebundle_(), raw=True)


def select(runs: Any) -> tuple[pd.DataFrame, list[str]]:
    """Read what there is to draw.

    Args:
        runs: A run (anything with `.path`, or a path), a list of runs, or a frame of frames.load_runs.

    Returns:
        The frame's rows that can be drawn, with `series` (run_series), `panel` (corpus and tokenizer: losses over
        different ones share no axis), `name` (the arm; its folder too, where two in a panel are one arm) and
        `colour`; and a line for each run that is not drawn, or not whole.
    """
    if not isinstance(runs, pd.DataFrame):
        runs = frames.load_folders(
            [reading.folder(run) for run in (runs if isinstance(runs, list) else [runs])]
        )
    runs = runs[runs["source"] == frames.MEASURED]
    read = [_series(row) for _, row in runs.iterrows()]
    notes = [
        f"{run}: {problem}" for run, (_, problem) in zip(runs["run"], read, strict=True) if problem
    ]
    runs = runs.assign(series=[series for series, _ in read])
    runs = runs[runs["series"].notna()]
    twice = runs.groupby(["corpus", "tokenizer", "arm"])["variant"].transform("nunique") > 1
    colours, rows = arm_colours(runs["arm"]), [row for _, row in runs.iterrows()]
    names = [
        f"{row.arm} · {frames.name(row)}" if two else row.arm
        for row, two in zip(rows, twice, strict=True)
    ]
    panels = [f"{row.corpus}, {row.tokenizer}" for row in rows]
    return runs.assign(panel=panels, name=names, colour=[colours[row.arm] for row in rows]), notes


def _series(run: pd.Series) -> tuple[dict[str, Any] | None, str]:
    """Rows of a run or None, and what is wrong with them or ""."""
    if not isinstance(run["experiment"], Experiment):
        return None, run["reason"]
    try:
        series = run_series(run["path"])
    except UserError as error:
        return None, str(error).replace(f"{run['path']}/", "")
    steps, losses = series["train"]["step"], series["train"]["loss"]
    lost = [step for step, loss in zip(steps, losses, strict=True) if loss is None]
    if not steps and not series["eval"]["step"]:
        return None, "no rows yet"
    return (
        series,
        f"loss is not a number at step {lost[0]:,} and {len(lost) - 1} later points"
        if lost
        else "",
    )


def new_figure(title: str, notes: list[str], panels: list[str], height: int = 320) -> Figure:
    """Lay out an empty figure of one panel a row, each `height` high; no panels: one that says so."""
    lines = [escape(line if len(line) < 120 else f"{line[:117]}...") for line in notes[:4]]
    lines += [f"and {len(notes) - 4} more runs"] if len(notes) > 4 else []
    rows = max(len(panels), 1)
    headings = panels if rows > 1 else None
    top, total = 66 + 19 * len(lines) + 14 * (rows > 1), height * rows if panels else 80
    figure = make_subplots(
        rows, 1, subplot_titles=headings, vertical_spacing=60 / total, figure=Figure()
    )
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
        modebar={"bgcolor": "rgba(0,0,0,0)", "color": INK, "activecolor": INK},
    )
    for row, y_axis in enumerate(figure.select_yaxes(), 1):
        place = {"y": y_axis.domain[1], "yanchor": "top", "tracegroupgap": 1, "font_size": 12.5}
        figure.update_layout(
            {_legend(row): place | {"groupclick": "togglegroup", "bgcolor": "rgba(0,0,0,0)"}}
        )
    axis = {
        "gridcolor": GRID,
        "linecolor": GRID,
        "zeroline": False,
        "showline": True,
        "automargin": True,
    }
    axis |= {"title_font_size": 13, "title_standoff": 8}
    figure.update_xaxes(**axis, ticks="outside", tickcolor=GRID, rangemode="tozero")
    figure.update_yaxes(**axis, hoverformat=".5~g")
    if not panels:
        figure.add_annotation(
            text="Nothing to draw yet.", showarrow=False, xref="paper", yref="paper", x=0.5, y=0.5
        )
        figure.update_xaxes(visible=False).update_yaxes(visible=False)
    return figure


def add(figure: Figure, row: int, trace: Any) -> None:
    """Add a trace to a panel and to the legend beside it."""
    trace.legend = _legend(row)
    figure.add_trace(trace, row=row, col=1)


def add_line(
    figure: Figure, row: int, spec: dict[str, Any], name: str, line: dict[str, Any], **more: Any
) -> None:
    """Add a line that the page computes.

    Args:
        spec: As series.trace_values takes it, and `group`: the grouping it is shown in (arm, seed; None: always).
    """
    mode = "lines+markers" if "marker" in more else "lines"
    group = f"{row} {name} {spec['group']}"
    add(
        figure,
        row,
        go.Scatter(
            **{"name": escape(name), "meta": spec, "line": line, "legendgroup": group, "mode": mode}
            | more
        ),
    )


def add_band(figure: Figure, row: int, spec: dict[str, Any], name: str, colour: str) -> None:
    """Fill from the least to the largest over a group's seeds."""
    red, green, blue = (int(colour[n : n + 2], 16) for n in (1, 3, 5))
    fill = {
        "showlegend": False,
        "hoverinfo": "skip",
        "fillcolor": f"rgba({red},{green},{blue},0.16)",
    }
    for stat, to in (("min", None), ("max", "tonexty")):
        add_line(
            figure, row, spec | {"stat": stat}, name, {"width": 0, "color": colour}, fill=to, **fill
        )


def finish(
    figure: Figure, rows: dict[str, Any], state: dict[str, Any], controls: list[str]
) -> Figure:
    """Compute the lines for `state`; hand rows (run -> series) and choices to the page controller."""
    for trace in figure.data:
        trace.x, trace.y = trace_values(trace.meta, rows, state)
        trace.visible = trace.meta["group"] in (state["group"], None)
    # As one string: notebook files give every number of a list a line of its own.
    packed = json.dumps(rows, separators=(",", ":"))
    figure.update_layout(
        meta={"state": state, "controls": controls if rows else [], "rows": packed}
    )
    title_x(figure, X_TITLES[state["x"]])
    if "log" in controls:
        figure.update_yaxes(type="log" if state["log"] else "linear")
    return figure


def title_x(figure: Figure, text: str) -> Figure:
    """Title the last panel's x axis; another's would stand in the way of the next panel's heading."""
    list(figure.select_xaxes())[-1].title.text = text
    return figure


def _legend(row: int) -> str:
    return "legend" if row == 1 else f"legend{row}"
