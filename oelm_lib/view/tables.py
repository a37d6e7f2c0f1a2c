"""Frames as tables of notebooks and pages, with the format of each column."""

import math
from collections.abc import Callable, Sequence
from html import escape
from typing import Any

import pandas as pd

from oelm_lib import stats
from oelm_lib.markup import Html, as_html, html_table
from oelm_lib.units import format_duration, format_eta

LARGEST_GAP = 10.0
"""Larger gaps (1,000 %) are shown as such: the arm has diverged, and its digits mean nothing."""
WRAPPED = 30
"""Columns with longer text than this wrap."""
COUNTS = ("n", "gap_n", "seeds")
TONES = {
    stats.PASS: "good",
    stats.YES: "good",
    stats.FAIL: "bad",
    stats.NO: "bad",
    stats.UNSTABLE: "bad",
    stats.INCONCLUSIVE: "unsure",
    stats.NOT_SHOWN: "unsure",
    stats.UNKNOWN: "unsure",
}
MARKS = {"good": "✓", "bad": "✗", "unsure": "?"}
"""A mark stands before each verdict, so that the colour is never alone."""
TONE_COLOURS = {"good": "#0a8060", "bad": "#d0342c", "unsure": "#a06a00"}
"""Where the page sets none of its own: contrast of at least 3 on white and on near-black."""


def percent(value: float, digits: int = 2) -> str:
    """Return a gap with its sign: +9.75 %."""
    return f"{_number(value, digits)} %"


def seeds_text(interval: stats.Interval, bounds: stats.Bounds) -> str:
    """Return what would decide a claim, as a clause; empty where it is not open.

    Args:
        bounds: Of the claim, as in stats.deciding_seeds.
    """
    if not stats.is_open(interval, bounds):
        return ""
    if interval.includes_documents:
        return "a larger split is needed: the error over documents is as large as that over seeds"
    seeds = stats.deciding_seeds(interval, bounds)
    if seeds is None:
        return "no number of seeds would decide it: the gap seen lies on the bound"
    few, many = seeds
    return f"about {few} to {many or f'more than {stats.MOST_SEEDS}'} seeds would decide it"


def _number(gap: float, digits: int) -> str:
    """Return a gap in percent without the unit."""
    if gap > LARGEST_GAP:
        return f"over {100 * LARGEST_GAP:+,.0f}"
    return f"{100 * gap:+.{digits}f}".replace("-", "−")


def gap_text(gap: float, low: float, high: float) -> str:
    """Return a gap with its interval: +3.0 % [+2.2, +3.8]; alone where the bounds are nan."""
    if math.isnan(low):
        return percent(gap, 1)
    return f"{percent(gap, 1)} [{_number(low, 1)}, {_number(high, 1)}]"


def interval_text(interval: stats.Interval) -> str:
    """Return gap_text of an interval; a dash where no pair has a difference."""
    if not interval.n:
        return "–"
    return gap_text(interval.gap, interval.gap_low, interval.gap_high)


def verdict_html(verdict: str) -> Html:
    """Return a verdict as bold coloured HTML with a mark before it."""
    tone = TONES.get(verdict)
    if tone is None:
        return Html(escape(verdict))
    style = f"color:{tone_colour(tone)};font-weight:600;white-space:nowrap"
    return Html(f"<span class='{tone}' style='{style}'>{MARKS[tone]} {escape(verdict)}</span>")


def verdict_mark(verdict: str) -> str:
    """Return the mark of a verdict, where there is no room for its word."""
    return MARKS[TONES[verdict]]


def toned(text: str, tone: str, tag: str = "span") -> str:
    """Return text as an HTML element in the colour of a tone; the text is escaped."""
    return f"<{tag} style='color:{tone_colour(tone)}'>{escape(text)}</{tag}>"


def tone_colour(tone: str) -> str:
    """Return the CSS colour of a tone: that of the page or the theme, where it sets one."""
    return f"var(--{tone},{TONE_COLOURS[tone]})"


FORMATS: dict[str, Callable[[Any], str]] = {
    **dict.fromkeys(("gap", "gap_back"), percent),
    **dict.fromkeys(("low", "high", "unadjusted_low", "unadjusted_high"), percent),
    **dict.fromkeys(("wall_seconds", "time", "seconds"), format_duration),
    "eta_seconds": format_eta,
    **dict.fromkeys(("nats", "total_nats"), "{:+.4f}".format),
    "share": "{:.2f}".format,
    **dict.fromkeys(("trainable_share", "confidence"), "{:.1%}".format),
    "trained share": "{:.2%}".format,
    **dict.fromkeys(("steps", "max_steps", "step", "tokens", "documents"), "{:,.0f}".format),
    **dict.fromkeys(("seed", "n", "gap_n"), "{:,.0f}".format),
    **dict.fromkeys(("total", "trainable", "frozen"), "{:,}".format),
    **dict.fromkeys(("learning_rate", "mean_step_seconds", "epochs"), "{:.3g}".format),
}
"""Column -> format of its numbers; others have four decimals, two where it ends in perplexity."""
DATES = ("started", "finished")


def table(frame: pd.DataFrame) -> Html:
    """Return a frame as a table that wraps long text.

    A column with one value in all rows stands in the caption; an empty column is left out. Numbers
    are right-aligned and have the format of their column; a dash stands for a missing value.
    """
    frame = frame.loc[:, frame.map(_is_given).any()]
    constant = [
        column
        for column in frame
        if len(frame) > 1 and column not in COUNTS and frame[column].map(str).nunique() == 1
    ]
    facts = [
        f"{escape(_heading(column))}: {as_html(_cell(column, frame[column].iloc[0]))}"
        for column in constant
    ]
    shown = frame.drop(columns=constant)
    styles = [_alignment(shown[column]) for column in shown]
    return plain_table(shown, styles, Html("; ".join(facts)))


def plain_table(frame: pd.DataFrame, styles: Sequence[str] = (), caption: str = "") -> Html:
    """Return all columns of a frame as a table, each value in the format of its column.

    Args:
        styles, caption: Arguments of html_table.
    """
    rows = ([_cell(key, value) for key, value in row.items()] for row in frame.to_dict("records"))
    return html_table([_heading(column) for column in frame], rows, styles, caption=caption)


def _is_given(value: Any) -> bool:
    return isinstance(value, list) or (pd.notna(value) and value != "")


def _cell(column: Any, value: Any) -> str:
    """Return a value as its column shows it: text, or Html."""
    if not _is_given(value):
        return "–"
    if column == "verdict":
        return verdict_html(str(value))
    if column in DATES:
        return str(value)[:16].replace("T", " ")
    if isinstance(value, str):
        return value
    if column in FORMATS:
        return FORMATS[column](value)
    if isinstance(value, float):
        return f"{value:.2f}" if str(column).endswith("perplexity") else f"{value:.4f}"
    return str(value)


def _alignment(values: pd.Series) -> str:
    if pd.api.types.is_numeric_dtype(values):
        return "text-align:right;white-space:nowrap"
    wraps = values.map(str).str.len().max() > WRAPPED
    return f"text-align:left;white-space:{'normal;min-width:14em' if wraps else 'nowrap'}"


def _heading(column: Any) -> str:
    """Return the name of a column in words; what is no identifier, e.g. an arm's name, as it is."""
    name = str(column)
    return name.replace("_", " ") if name.isidentifier() else name
