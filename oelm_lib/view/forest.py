"""Forest plot: gaps and their intervals, one below the other, for comparison and study."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import plotly.graph_objects as go

from oelm_lib.stats import Interval
from oelm_lib.view.figure import INK, Figure, add_trace, plotly_text
from oelm_lib.view.gaps import LARGEST_GAP

HEAD, LINE, SPACE = 40, 20, 8
"""Pixels: of a row's two lines of text, of each of its intervals, and below the row."""
BELOW = 24
"""Pixels below the last row, for the names of the limits."""
CHARACTER = 7
"""Pixels of a character of a label; a row's text begins where the labels begin."""
NARROWEST = 230
"""Pixels of a panel in a narrow window."""
LEAST_REACH = 15.0
"""A bound is drawn within this many percent of 0, or three times as far as gap and seeds reach."""
LEAST, LARGEST_DRAWN = -100.0, 200.0
"""Least gap there is, and largest one that is drawn, in percent."""
SMALL = {"font_size": 11.5, "showarrow": False}
"""Look of notes and of the names of limits."""


@dataclass(frozen=True)
class Mark:
    """A gap with its interval."""

    name: str
    """What the mouse shows, and the name in the saved CSV."""
    interval: Interval
    colour: str
    symbol: str
    label: str = ""
    """Text on the axis."""
    note: str = ""
    """Text to the right of the intervals and limits of the row."""
    seeds: tuple[float, ...] = ()
    """Gap of each seed, in percent."""

    @property
    def percent(self) -> float:
        """The gap, in percent."""
        return 100 * self.interval.gap

    def bounds(self) -> tuple[float, float]:
        """Return the ends of what is drawn, in percent; a bound far outside leaves the panel."""
        values = [self.percent, *self.seeds]
        reach = max(LEAST_REACH, *(3 * abs(value) for value in values))
        ends = (100 * bound for bound in (self.interval.gap_low, self.interval.gap_high))
        values += [end for end in ends if abs(end) < reach]
        return min(values), min(max(values), LARGEST_DRAWN)

    @property
    def leaves_panel(self) -> bool:
        """Whether the bar goes on where the panel ends."""
        return self.interval.known and 100 * self.interval.gap_high > self.bounds()[1]


@dataclass(frozen=True)
class Row:
    """A comparison: two lines of text, and its gaps below them."""

    text: str
    """HTML of plotly: <b> and <br>."""
    marks: list[Mark]
    limits: tuple[float, ...]
    """Gaps that the verdicts are about, in percent."""

    @property
    def height(self) -> int:
        """Pixels of the row."""
        return HEAD + LINE * len(self.marks) + SPACE

    @property
    def end(self) -> float:
        """Largest gap that is drawn, in percent."""
        return max([*self.limits, *(mark.bounds()[1] for mark in self.marks)])


def panel_height(rows: list[Row]) -> int:
    """Return the pixels that a panel of these rows needs."""
    return sum(row.height for row in rows) + BELOW


def draw_rows(figure: Figure, panel: int, rows: list[Row], limit_names: dict[float, str]) -> None:
    """Draw rows in a panel, whose y axis counts pixels downwards, and set its axes.

    Args:
        limit_names: Gap in percent -> its name below the last row.
    """
    where = {"row": panel, "col": 1}
    low, high = _range(rows, limit_names)
    top, labels = 0, {}
    labels_width = CHARACTER * max(len(mark.label) for row in rows for mark in row.marks)
    for row in rows:
        figure.add_annotation(
            text=row.text,
            align="left",
            x=0,
            xshift=-labels_width,
            xref="x domain",
            xanchor="left",
            y=top + HEAD,
            yanchor="bottom",
            showarrow=False,
            **where,
        )
        _draw_limits(figure, panel, row, top + HEAD)
        for place, mark in enumerate(row.marks):
            y = top + HEAD + LINE * (place + 0.5)
            labels[y] = plotly_text(mark.label)
            _draw_mark(figure, panel, mark, y)
            if mark.note:
                text, at = plotly_text(mark.note), _note_place(row, mark, low, high)
                figure.add_annotation(text=text, y=y, **at, **SMALL, **where)
        top += row.height
    for value, text in _apart(limit_names, 0.08 * (high - low)).items():
        side = "left" if value > 0 else "right"
        below = {"y": top, "yanchor": "top"}
        figure.add_annotation(text=text, x=value, xanchor=side, **below, **SMALL, **where)
    axis = {"range": [low, high], "rangemode": "normal", "ticksuffix": " %", "showgrid": False}
    figure.update_xaxes(**axis, **where)
    figure.update_yaxes(
        range=[top + BELOW, 0],
        showgrid=False,
        showline=False,
        ticks="",
        tickvals=list(labels),
        ticktext=list(labels.values()),
        **where,
    )


def _note_place(row: Row, mark: Mark, low: float, high: float) -> dict[str, Any]:
    """Return where a note stands: beside its row, or at the panel's edge, there above a bar."""
    needed = 10 + CHARACTER * len(mark.note)

    def has_room(end: float) -> bool:
        return NARROWEST * (high - end) / (high - low) >= needed

    if has_room(row.end) and not mark.leaves_panel:
        return {"x": row.end, "xanchor": "left", "xshift": 6}
    reaches_note = mark.leaves_panel or not has_room(mark.bounds()[1])
    edge = {"x": 1, "xref": "x domain", "xanchor": "right"}
    return edge | {"yshift": LINE // 2 if reaches_note else 0}


def _range(rows: list[Row], limits: Iterable[float]) -> tuple[float, float]:
    """Return the range of the x axis that shows all rows, with room for their notes."""
    ends = [end for row in rows for mark in row.marks for end in mark.bounds()]
    low, high = min([*ends, *limits]), max([*ends, *limits])
    return max(low - 0.1 * (high - low), LEAST), high + 0.2 * (high - low)


def _apart(limit_names: dict[float, str], least: float) -> dict[float, str]:
    """Return the names of limits; those of positive ones nearer than `least` are joined."""
    names: dict[float, str] = {}
    for value, text in sorted(limit_names.items()):
        last = max(names, default=0.0)
        if last > 0 and value - last < least:
            text = f"{names.pop(last)}, {text}"
        names[value] = text
    return names


def _draw_limits(figure: Figure, panel: int, row: Row, top: float) -> None:
    """Draw 0 and the limits through the intervals of a row, not through its text."""
    for value in (0.0, *row.limits):
        stroke = {"dash": "4px,3px" if value else "solid", "width": 1.4, "color": INK}
        mark = {"x0": value, "x1": value, "y0": top, "y1": top + LINE * len(row.marks)}
        figure.add_shape(type="line", line=stroke, **mark, row=panel, col=1)


def _draw_mark(figure: Figure, panel: int, mark: Mark, y: float) -> None:
    """Draw the seeds of a mark, and its gap with the interval."""
    look = {"hoverinfo": "x+name", "showlegend": False}
    name = plotly_text(mark.name)
    if mark.seeds:
        tick = {"color": mark.colour, "size": 13, "symbol": "line-ns-open", "line_width": 1.5}
        seeds = {"x": mark.seeds, "y": [y] * len(mark.seeds), "name": f"{name}, seeds"}
        add_trace(figure, panel, go.Scatter(**seeds, mode="markers", marker=tick, **look))
    interval, bar = mark.interval, None
    if interval.known and interval.gap_high < LARGEST_GAP:
        bar = {
            "array": [round(100 * interval.gap_high - mark.percent, 4)],
            "arrayminus": [round(mark.percent - 100 * interval.gap_low, 4)],
            "symmetric": False,
            "thickness": 2.5,
            "width": 5,
        }
    dot = {"color": mark.colour, "size": 8, "symbol": mark.symbol}
    gap = {"x": [round(mark.percent, 4)], "y": [y], "error_x": bar, "marker": dot}
    add_trace(figure, panel, go.Scatter(**gap, name=name, mode="markers", **look))
