"""Plotly figures from run folders; the reader's choices work in JupyterLab's widgets and in the exported page."""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from html import escape
from typing import Any

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from oelm_lib.analysis.arms import arm_colours, arm_name
from oelm_lib.analysis.series import STATE, run_series, trace_values
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
SYMBOLS = ("circle", "square", "diamond", "triangle-up", "cross", "star")
DASHES = ("solid", "dash", "dot", "dashdot")
X_TITLES = {"step": "step", "tokens": "tokens seen", "hours": "hours since start", "epochs": "epochs"}
Y_TITLES = {"loss": "loss (nats per token)", "perplexity": "perplexity"}


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
    """Corpus, and tokenizer: losses over different ones share no axis."""
    series: dict[str, Any]


def drawable(runs: Any) -> tuple[list[Drawn], list[str]]:
    """The runs that have rows, and one line for each that has none.

    Args:
        runs: A run (anything with `.path`, or a path) or an iterable of runs.
    """
    runs = [runs] if isinstance(runs, str) or hasattr(runs, "path") or not isinstance(runs, Iterable) else list(runs)
    drawn, left_out = [], []
    for run in runs:
        path = reading.folder(run)
        key = f"{path.parent.name}/{path.name}"
        try:
            plain, series = reading.read_config(path), run_series(path)
        except UserError as error:
            left_out.append(f"{key}: {str(error).removeprefix(str(path)).lstrip('/: ')}")
            continue
        if not series["train"]["step"] and not series["eval"]["step"]:
            left_out.append(f"{key}: no rows yet")
            continue
        corpus = plain["corpus"]
        panel = f"{corpus['name']}, {corpus['tokenizer']}"
        arm = arm_name(plain["experiment"], plain["overrides"])
        drawn.append(Drawn(key, path.parent.name, plain["seed"], arm, panel, series))
    return drawn, left_out


def loss_curves(
    runs: Any, *, x: str = "step", y: str = "loss", smoothing: float = 0.95, log: bool = False, group: str | None = None
) -> Figure:
    """Draw training loss, faint and smoothed, and validation loss, marked.

    Args:
        runs: A run or a list of runs (Run objects or folders); one panel for each corpus.
        x, y, smoothing, log, group: The reader's choices, as in series.STATE; group defaults to seed where no
            experiment has two runs.
    """
    drawn, left_out = drawable(runs)
    groups = _groups(drawn)
    state = STATE | {"x": x, "y": y, "smoothing": smoothing, "log": log}
    state["group"] = group or ("seed" if all(len(group) == 1 for group in groups.values()) else "arm")
    figure = _panels("Loss", "faint and thin: training, raw and smoothed; marked: validation", drawn, left_out)
    for panel, name, colour, members in _legend(drawn):
        keys = [run.key for run in members]
        train = {"runs": keys, "kind": "train", "column": "loss", "smooth": True, "stat": "mean", "group": "arm"}
        val = train | {"kind": "eval", "smooth": False}
        label = name if len(keys) == 1 else f"{name} (mean of {len(keys)})"
        if len(keys) > 1:
            _add_band(figure, panel, colour, val, name)
        _add(figure, panel, train, label, {"width": 1.2, "color": colour}, opacity=0.75, showlegend=False)
        _add(figure, panel, val, label, {"width": 2.2, "color": colour}, marker={"symbol": "circle", "size": 6})
        for number, run in enumerate(members):
            label = f"{name} · seed {run.seed}"
            dash, symbol = DASHES[number % len(DASHES)], SYMBOLS[number % len(SYMBOLS)]
            one = {"runs": [run.key], "group": "seed"}
            raw = train | one | {"stat": "envelope", "smooth": False}
            _add(figure, panel, raw, label, {"width": 1, "color": colour}, opacity=0.25, showlegend=False)
            line = {"width": 1.2, "color": colour, "dash": dash}
            _add(figure, panel, train | one, label, line, opacity=0.75, showlegend=False)
            line = {"width": 2, "color": colour, "dash": dash}
            _add(figure, panel, val | one, label, line, marker={"symbol": symbol, "size": 6})
    return _finish(figure, drawn, state, ["x", "y", "smoothing", "log", "group"])


def _groups(drawn: list[Drawn]) -> dict[str, list[Drawn]]:
    groups: dict[str, list[Drawn]] = {}
    for run in drawn:
        groups.setdefault(run.group, []).append(run)
    return groups


def _legend(drawn: list[Drawn]) -> list[tuple[int, str, str, list[Drawn]]]:
    """(panel row, name, colour, runs) of each group; the folder tells apart two groups of one arm in a panel."""
    panels = list(dict.fromkeys(run.panel for run in drawn))
    colours = arm_colours(run.arm for run in drawn)
    groups = list(_groups(drawn).values())
    arms = [(members[0].panel, members[0].arm) for members in groups]
    rows = []
    for members, arm in zip(groups, arms, strict=True):
        first = members[0]
        name = first.arm if arms.count(arm) == 1 else f"{first.arm} · {first.group}"
        rows.append((panels.index(first.panel) + 1, name, colours[first.arm], members))
    return rows


def _panels(title: str, subtitle: str, drawn: list[Drawn], left_out: list[str]) -> Figure:
    panels = list(dict.fromkeys(run.panel for run in drawn))
    titles = panels if len(panels) > 1 else None
    figure = Figure()
    if len(panels) > 1:
        make_subplots(rows=len(panels), cols=1, subplot_titles=titles, vertical_spacing=0.14, figure=figure)
    lines = [escape(line) for line in (subtitle, *left_out)]
    shown = lines[:4] + ([f"and {len(lines) - 4} more runs not drawn"] if len(lines) > 4 else [])
    figure.update_layout(
        template="none",
        height=170 + 22 * len(shown) + 320 * max(len(panels), 1),
        title={
            "text": f"<b>{escape(title)}</b>",
            "subtitle": {"text": "<br>".join(shown), "font": {"size": 12.5}},
            "x": 0,
            "xref": "container",
            "y": 1,
            "yref": "container",
            "yanchor": "top",
            "pad": {"t": 10, "l": 4},
            "font": {"size": 17},
        },
        font={
            "family": "system-ui, 'Segoe UI', 'Helvetica Neue', 'Liberation Sans', sans-serif",
            "size": 13,
            "color": INK,
        },
        margin={"l": 70, "r": 20, "t": 60 + 20 * len(shown), "b": 60},
        paper_bgcolor="rgba(0,0,0,0)",
        plot_bgcolor="rgba(0,0,0,0)",
        hovermode="closest",
        legend={"itemsizing": "constant", "groupclick": "togglegroup", "bgcolor": "rgba(0,0,0,0)"},
    )
    axis = {"gridcolor": GRID, "linecolor": GRID, "zeroline": False, "showline": True, "automargin": True}
    figure.update_xaxes(**axis, ticks="outside", tickcolor=GRID, rangemode="tozero")
    figure.update_yaxes(**axis)
    if not drawn:
        figure.add_annotation(text="No run has rows yet.", showarrow=False, xref="paper", yref="paper", x=0.5, y=0.5)
        figure.update_xaxes(visible=False).update_yaxes(visible=False)
    return figure


def _add(figure: Figure, panel: int, spec: dict[str, Any], name: str, line: dict[str, Any], **more: Any) -> None:
    place = {"row": panel, "col": 1} if figure._grid_ref else {}
    figure.add_trace(
        go.Scatter(
            name=escape(name),
            meta=spec,
            line=line,
            legendgroup=f"{panel} {name} {spec['group']}",
            mode="lines+markers" if "marker" in more else "lines",
            **more,
        ),
        **place,
    )


def _add_band(figure: Figure, panel: int, colour: str, spec: dict[str, Any], name: str) -> None:
    """Fill from the least to the largest over the seeds."""
    red, green, blue = (int(colour[n : n + 2], 16) for n in (1, 3, 5))
    fill = {"showlegend": False, "hoverinfo": "skip", "fillcolor": f"rgba({red},{green},{blue},0.16)"}
    for stat, to in (("min", None), ("max", "tonexty")):
        _add(figure, panel, spec | {"stat": stat}, name, {"width": 0, "color": colour}, fill=to, **fill)


def _finish(figure: Figure, drawn: list[Drawn], state: dict[str, Any], controls: list[str]) -> Figure:
    """Compute the traces for `state` and leave the rows to the page controller."""
    rows = {run.key: run.series for run in drawn}
    for trace in figure.data:
        trace.x, trace.y = (_plain(values) for values in trace_values(trace.meta, rows, state))
        trace.visible = trace.meta["group"] in (state["group"], None)
    figure.update_layout(meta={"state": state, "controls": controls, "rows": rows})
    if "x" in controls:
        figure.update_xaxes(title_text=X_TITLES[state["x"]])
    if "y" in controls:
        figure.update_yaxes(title_text=Y_TITLES[state["y"]])
    if state["log"]:
        figure.update_yaxes(type="log")
    return figure


def _plain(values: Any) -> list[float | None]:
    return [float(f"{value:.7g}") if value == value else None for value in values]
