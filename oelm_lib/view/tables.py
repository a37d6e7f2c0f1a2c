"""Tables and text as notebooks and pages show them."""

from html import escape
from typing import Any

import pandas as pd

from oelm_lib.runs.status import format_duration

BUDGET = (
    "setup",
    "compile",
    "data",
    "step",
    "evaluation",
    "saving",
    "other",
    "final_evaluation",
    "page",
)


def percent(value: float) -> str:
    """A gap with its sign: +9.75 %."""
    return f"{100 * value:+.2f} %"


FORMATS = {
    percent: ("gap", "gap_back", "gap_to_plain", "gap_to_own", "low", "high"),
    format_duration: ("wall_seconds", "seconds", *BUDGET),
    "{:+.4f}".format: ("nats", "total_nats"),
    "{:.1%}".format: ("trainable_share", "confidence", "difference_on_repeats", "repeats"),
    "{:.2%}".format: ("trained_at_medium", "trained_here", "within"),
    "{:,.0f}".format: (
        "steps",
        "max_steps",
        "step",
        "tokens",
        "documents",
        "seed",
        "n",
        "gap_n",
        "seeds_for_1_%",
    ),
    "{:,.1f}".format: ("GFLOP_per_step", "hours_on_an_A5000"),
    "{:,}".format: ("total", "trainable", "frozen", "trainable_parameters"),
    "{:.3g}".format: ("p", "learning_rate", "mean_step_seconds", "epochs"),
}


def as_shown(key: str, value: Any) -> str:
    """One value of a column as `show` has it."""
    form = next((form for form, keys in FORMATS.items() if key in keys), None)
    return form(value) if form else f"{value:g}" if isinstance(value, float) else str(value)


def show(table: pd.DataFrame) -> Any:
    """The table styled for notebooks and pages, with units; a dash for what is missing."""
    formats = {key: form for form, keys in FORMATS.items() for key in keys if key in table}
    rest = table.select_dtypes("float").columns.difference(list(formats))
    formats |= {key: "{:.2f}" if key.endswith("perplexity") else "{:.4f}" for key in rest}
    styled = table.style.format(formats, na_rep="–", escape="html").hide(axis="index")
    return styled.set_table_attributes("class='oelm-table'")


COUNTS = ("n", "gap_n")


class Html(str):
    """Text that notebooks show as HTML."""

    def _repr_html_(self) -> str:
        return str(self)


def table(frame: pd.DataFrame) -> Any:
    """Style a table: what is the same in all rows stands above it, what is empty is left out."""
    frame = frame.loc[:, frame.map(lambda value: value not in (None, "") and value == value).any()]
    same = [
        key
        for key in frame
        if len(frame) > 1 and key not in COUNTS and frame[key].map(str).nunique() == 1
    ]
    above = "; ".join(f"{_words(key)}: {as_shown(key, frame[key].iloc[0])}" for key in same)
    shown = frame.drop(columns=same)
    numbers, longest = (
        set(shown.select_dtypes("number")),
        {key: shown[key].map(str).str.len().max() for key in shown},
    )
    looks = {key: "text-align:right" if key in numbers else "text-align:left" for key in shown}
    looks |= {
        key: "text-align:left;white-space:normal;min-width:18em"
        for key in shown
        if longest[key] > 40
    }
    styles = {key: [{"selector": "", "props": look}] for key, look in looks.items()}
    general = [
        {"selector": "td", "props": "white-space:nowrap"},
        {"selector": "caption", "props": "text-align:left"},
    ]
    styled = (
        show(shown)
        .format_index(lambda key: escape(_words(key)), axis="columns")
        .set_table_styles(general)
    )
    return styled.set_table_styles(styles, overwrite=False).set_caption(escape(above))


def _words(key: Any) -> str:
    return str(key).replace("_", " ")
