"""Layout of all figures: fonts, panels, legends, and the data of the page's controls."""

import json
import textwrap
from html import escape
from typing import Any

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from oelm_lib.markup import plain_text
from oelm_lib.view.save_buttons import save_buttons
from oelm_lib.view.series import trace_values

MIMETYPE = "application/vnd.plotly.v1+json"
CONFIG = {
    "displaylogo": False,
    "showSendToCloud": False,
    # JupyterLab's renderer resizes figures itself; with plotly's own handler beside it they
    # collapse to a height of 0 when a tab is shown again. The exported page turns it on.
    "responsive": False,
    "modeBarButtonsToRemove": ["lasso2d", "select2d"],
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
NOTE_LENGTH, NOTE_LINE, TITLE_LINE = 150, 48, 34
"""Characters of a note under the title, of its lines, and of those of the title: plotly wraps no
text, and a figure beside JupyterLab's file browser has little more than 300 pixels. The page joins
the lines again.
"""
BUTTONS = 22
"""Pixels above the title for plotly's buttons, which else cover it in a narrow window."""
MOST_NOTES = 4
LEGEND_LINE = 20
"""Pixels of height for each entry of a legend below a figure: in a narrow window a line each."""
LEGEND_KEYS = ("legend", "legendgroup", "showlegend")
"""Properties of a trace that say where its entry in a legend stands."""


class Figure(go.Figure):
    """A plotly figure that notebooks show with its config, and with buttons that save it.

    Where plotly's MIME type is not shown (plain nbconvert, GitHub), a line says how to see it.
    """

    def _repr_mimebundle_(self, include=None, exclude=None, **kwargs) -> dict[str, Any]:
        title = plain_text(self.layout.title.text or "figure")
        note = f"Interactive figure: {escape(title)}. For a page that shows it:"
        return {
            MIMETYPE: json.loads(self.to_json()) | {"config": CONFIG},
            "text/html": f"<p><em>{note} <code>oelm report X.ipynb</code></em></p>",
            "text/plain": f"Figure: {title}",
        }

    def outputs(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """Return the figure, its legend below, and its save buttons as two outputs of a cell."""
        return (
            {"data": legend_below(Figure(self))._repr_mimebundle_(), "metadata": {}},
            {"data": {"text/html": save_buttons()}, "metadata": {"oelm": "live-only"}},
        )

    def _ipython_display_(self) -> None:
        from IPython.display import display

        for output in self.outputs():
            display(output["data"], metadata=output["metadata"], raw=True)


def plotly_text(text: str) -> str:
    """Return text as plotly shows it unchanged: plotly reads tags, and does not know `&quot;`."""
    return escape(text, quote=False)


def new_figure(title: str, notes: list[str], panels: list[str], height: int = 320) -> Figure:
    """Return an empty figure with one panel per row.

    Args:
        notes: Lines under the title; those after the fourth are only counted.
        panels: Headings; none: the figure says that there is nothing to draw.
        height: Of a panel, in pixels.
    """
    lines, title_lines = _note_lines(notes), textwrap.wrap(title, TITLE_LINE)
    rows = max(len(panels), 1)
    top = BUTTONS + 36 + 22 * len(title_lines) + 17 * len(lines) + 14 * (rows > 1)
    total = height * rows if panels else 80
    figure = make_subplots(
        rows,
        1,
        subplot_titles=list(map(plotly_text, panels)) if rows > 1 else None,
        vertical_spacing=60 / total,
        figure=Figure(),
    )
    figure.update_annotations(x=0, xanchor="left", font_size=14)
    figure.update_layout(
        template="none",
        height=total + top + 60,
        title={
            "text": f"<b>{' <br>'.join(map(plotly_text, title_lines))}</b>",
            "subtitle": {"text": "<br>".join(lines), "font": {"size": 12.5}},
            "x": 0,
            "xref": "container",
            "y": 1,
            "yref": "container",
            "yanchor": "top",
            # Of two lines, plotly puts the first 12 pixels higher.
            "pad": {"t": BUTTONS + 10 + 12 * (len(title_lines) - 1), "l": 4},
            "font": {"size": 17},
        },
        font={"family": FONT, "size": 13, "color": INK},
        margin={"l": 70, "r": 20, "t": top, "b": 60},
        paper_bgcolor="rgba(0,0,0,0)",
        plot_bgcolor="rgba(0,0,0,0)",
        showlegend=True,
        modebar={"bgcolor": "rgba(0,0,0,0)", "color": INK, "activecolor": INK},
    )
    _set_axes(figure)
    if not panels:
        figure.add_annotation(
            text="Nothing to draw yet.", showarrow=False, xref="paper", yref="paper", x=0.5, y=0.5
        )
        figure.update_xaxes(visible=False).update_yaxes(visible=False)
    return figure


def _note_lines(notes: list[str]) -> list[str]:
    """Return the first notes as lines of HTML, and how many there are beside them.

    A line that its note continues in the next one ends with a space.
    """
    lines = []
    for note in notes[:MOST_NOTES]:
        short = textwrap.shorten(note, NOTE_LENGTH, placeholder="...")
        wrapped = textwrap.fill(short, NOTE_LINE, break_on_hyphens=False, break_long_words=False)
        lines += plotly_text(wrapped).replace("\n", " \n").split("\n")
    hidden = len(notes) - MOST_NOTES
    return [*lines, f"and {hidden} more"] if hidden > 0 else lines


def _set_axes(figure: Figure) -> None:
    """Give every panel the project's axes and a legend beside it."""
    for row, y_axis in enumerate(figure.select_yaxes(), 1):
        legend = {
            "y": y_axis.domain[1],
            "yanchor": "top",
            "tracegroupgap": 1,
            "font_size": 12.5,
            "groupclick": "togglegroup",
            "bgcolor": "rgba(0,0,0,0)",
        }
        figure.update_layout({_legend(row): legend})
    axis = {
        "gridcolor": GRID,
        "linecolor": GRID,
        "zeroline": False,
        "showline": True,
        "automargin": True,
        "title_font_size": 13,
        "title_standoff": 8,
    }
    figure.update_xaxes(**axis, ticks="outside", tickcolor=GRID, rangemode="tozero")
    figure.update_yaxes(**axis, hoverformat=".5~g")


def add_trace(figure: Figure, row: int, trace: Any) -> None:
    """Add a trace to a panel and to the legend beside it."""
    trace.legend = _legend(row)
    figure.add_trace(trace, row=row, col=1)


def add_line(
    figure: Figure, row: int, spec: dict[str, Any], name: str, line: dict[str, Any], **more: Any
) -> None:
    """Add a line that the page computes.

    Args:
        spec: Argument of series.trace_values, and `group`: the grouping in which the line is shown
            (arm or seed; None: always).
        line: Plotly's line properties.
        more: Other properties of the trace.
    """
    look = {
        "name": plotly_text(name),
        "meta": spec,
        "line": line,
        "legendgroup": f"{row} {name} {spec['group']}",
        "mode": "lines+markers" if "marker" in more else "lines",
    }
    add_trace(figure, row, go.Scatter(**look | more))


def add_band(figure: Figure, row: int, spec: dict[str, Any], name: str, colour: str) -> None:
    """Fill from the smallest to the largest value over a group's seeds."""
    red, green, blue = (int(colour[n : n + 2], 16) for n in (1, 3, 5))
    look = {
        "showlegend": False,
        "hoverinfo": "skip",
        "fillcolor": f"rgba({red},{green},{blue},0.16)",
    }
    line = {"width": 0, "color": colour}
    for stat, fill in (("min", None), ("max", "tonexty")):
        add_line(figure, row, spec | {"stat": stat}, name, line, fill=fill, **look)


def legend_below(figure: Figure) -> Figure:
    """Make the legends one below the panels, where the place may be narrow; returns the figure.

    What it changes is kept in `layout.meta`, for legend_beside.
    """
    if figure.layout.showlegend is False:
        return figure
    layout = figure.layout
    kept = {"legend": layout.legend.to_plotly_json(), "height": layout.height}
    kept |= {"bottom": layout.margin.b, "traces": []}
    named: set[str] = set()
    for trace in figure.data:
        kept["traces"].append([trace[key] for key in LEGEND_KEYS])
        is_shown = trace.visible is not False and trace.showlegend is not False
        first = is_shown and trace.name not in named
        trace.update(legend="legend", legendgroup=trace.name, showlegend=first)
        named |= {trace.name} if is_shown else set()
    room = LEGEND_LINE * len(named)
    legend = {"orientation": "h", "x": 0, "xanchor": "left", "y": 0, "yanchor": "bottom"}
    layout.update(height=layout.height + room, margin_b=layout.margin.b + room)
    layout.update(legend=legend | {"yref": "container", "xref": "container"})
    return figure.update_layout(meta=(layout.meta or {}) | {"beside": kept})


def legend_beside(plain: dict[str, Any]) -> dict[str, Any]:
    """Undo legend_below in a figure of a notebook, for a page that knows its width.

    Any other figure is returned as it is.
    """
    try:
        layout, kept = plain["layout"], plain["layout"]["meta"]["beside"]
        traces = []
        for trace, values in zip(plain["data"], kept["traces"], strict=True):
            own = dict(zip(LEGEND_KEYS, values, strict=True))
            rest = {key: value for key, value in trace.items() if key not in own}
            traces.append(rest | {key: value for key, value in own.items() if value is not None})
        margin = layout["margin"] | {"b": kept["bottom"]}
        new = {"legend": kept["legend"], "height": kept["height"], "margin": margin}
    except (KeyError, TypeError, ValueError, AttributeError):
        return plain
    meta = {key: value for key, value in layout["meta"].items() if key != "beside"}
    return plain | {"data": traces, "layout": layout | new | {"meta": meta}}


def add_controls(
    figure: Figure, rows: dict[str, Any], state: dict[str, Any], controls: list[str]
) -> Figure:
    """Compute the lines for `state`, and store what the page's controls need.

    Args:
        rows: Run -> run_series.
        state: The reader's choices, as series.STATE.
        controls: Names of the controls that the page shows.
    """
    for trace in figure.data:
        trace.x, trace.y = trace_values(trace.meta, rows, state)
        trace.visible = trace.meta["group"] in (state["group"], None)
    # One string: a notebook file gives every number of a list a line of its own.
    packed = json.dumps(rows, separators=(",", ":"))
    figure.update_layout(
        meta={"state": state, "controls": controls if rows else [], "rows": packed}
    )
    title_x(figure, X_TITLES[state["x"]])
    if "log" in controls:
        figure.update_yaxes(type="log" if state["log"] else "linear")
    return figure


def title_x(figure: Figure, text: str) -> Figure:
    """Title the last panel's x axis; another panel's title would overlap the next heading."""
    list(figure.select_xaxes())[-1].title.text = text
    return figure


def _legend(row: int) -> str:
    return "legend" if row == 1 else f"legend{row}"
