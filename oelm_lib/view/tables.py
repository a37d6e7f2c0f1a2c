"""Frames as tables of notebooks and pages, with the format of each column."""

from collections.abc import Callable, Sequence
from html import escape
from typing import Any

import pandas as pd

from oelm_lib.markup import Html, as_html, html_table
from oelm_lib.units import format_duration, format_eta, significant
from oelm_lib.view.gaps import percent
from oelm_lib.view.tones import verdict_html

WRAPPED = 30
"""Columns with longer text than this wrap."""
COUNTS = ("n", "gap_n")
"""Columns that stay in the table even if all rows have one value."""
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
    **dict.fromkeys(("learning_rate", "mean_step_seconds"), "{:.3g}".format),
    "epochs": lambda value: significant(value, 3),
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
