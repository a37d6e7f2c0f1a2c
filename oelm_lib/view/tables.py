"""Frames as tables of notebooks and pages, with the format of each column."""

import math
from collections.abc import Callable
from html import escape
from typing import Any

import pandas as pd

from oelm_lib import stats
from oelm_lib.runs.status import format_duration, format_eta

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
    if interval.document_error:
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


def bounds_text(low: float, high: float) -> str:
    """Return the bounds of a gap in percent: [+2.2, +3.8]; "" where they are nan."""
    return "" if math.isnan(low) else f"[{_number(low, 1)}, {_number(high, 1)}]"


def gap_text(gap: float, low: float, high: float) -> str:
    """Return a gap with its interval: +3.0 % [+2.2, +3.8]."""
    return f"{percent(gap, 1)} {bounds_text(low, high)}".rstrip()


def interval_text(interval: stats.Interval) -> str:
    """Return gap_text of an interval; a dash where no pair has a difference."""
    if not interval.n:
        return "–"
    return gap_text(interval.gap, interval.gap_low, interval.gap_high)


def verdict_html(verdict: str) -> str:
    """Return a verdict as bold coloured HTML with a mark before it."""
    tone = TONES.get(verdict)
    if tone is None:
        return escape(verdict)
    style = f"color:var(--{tone},{TONE_COLOURS[tone]});font-weight:600;white-space:nowrap"
    return f"<span class='{tone}' style='{style}'>{MARKS[tone]} {escape(verdict)}</span>"


def _date(value: str) -> str:
    return str(value)[:16].replace("T", " ")


FORMATS: dict[Callable[[Any], str], tuple[str, ...]] = {
    percent: ("gap", "gap_back", "low", "high", "unadjusted_low", "unadjusted_high"),
    verdict_html: ("verdict",),
    format_duration: ("wall_seconds", "time", "seconds"),
    format_eta: ("eta_seconds",),
    _date: ("started", "finished"),
    "{:+.4f}".format: ("nats", "total_nats"),
    "{:.1%}".format: ("trainable_share", "confidence"),
    "{:,.0f}".format: ("steps", "max_steps", "step", "tokens", "documents", "seed", "n", "gap_n"),
    "{:,}".format: ("total", "trainable", "frozen"),
    "{:.3g}".format: ("learning_rate", "mean_step_seconds", "epochs"),
}
"""Format -> the columns that have it.

Other numbers have four decimals; two in a column that ends in `perplexity`.
"""
FORMAT_OF = {column: form for form, columns in FORMATS.items() for column in columns}


def table(frame: pd.DataFrame) -> Any:
    """Return a frame as a styled table (a pandas Styler) that wraps long text.

    A column with one value in all rows stands in the caption; an empty column is left out. Numbers
    are right-aligned and have the format of their column; a dash stands for a missing value.
    """
    frame = frame.loc[:, frame.map(_is_given).any()]
    constant = [
        column
        for column in frame
        if len(frame) > 1 and column not in COUNTS and frame[column].map(str).nunique() == 1
    ]
    caption = "; ".join(
        f"{_heading(column)}: {_format(column, frame[column].iloc[0])}" for column in constant
    )
    shown = frame.drop(columns=constant)
    formats = {column: (lambda value, c=column: _format(c, value)) for column in shown}
    styles = {column: [{"selector": "", "props": _alignment(shown[column])}] for column in shown}
    return (
        shown.style.format(formats, na_rep="–")
        .hide(axis="index")
        .format_index(lambda column: escape(_heading(column)), axis="columns")
        .set_table_attributes("class='oelm-table'")
        .set_table_styles([{"selector": "caption", "props": "text-align:left"}])
        .set_table_styles(styles, overwrite=False)
        .set_caption(caption)
    )


def _is_given(value: Any) -> bool:
    return isinstance(value, list) or (pd.notna(value) and value != "")


def _format(column: str, value: Any) -> str:
    """Return a value as HTML, as its column is shown."""
    if not _is_given(value):
        return "–"
    form = FORMAT_OF.get(column)
    if form is verdict_html:
        return verdict_html(str(value))
    if isinstance(value, str) and form is not _date:
        return escape(value)
    if form:
        return escape(form(value))
    if isinstance(value, float):
        return f"{value:.2f}" if column.endswith("perplexity") else f"{value:.4f}"
    return escape(str(value))


def _alignment(values: pd.Series) -> str:
    if pd.api.types.is_numeric_dtype(values):
        return "text-align:right;white-space:nowrap"
    wraps = values.map(str).str.len().max() > WRAPPED
    return f"text-align:left;white-space:{'normal;min-width:14em' if wraps else 'nowrap'}"


def _heading(column: Any) -> str:
    return str(column).replace("_", " ")
