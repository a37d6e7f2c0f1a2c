"""What a comparison says in words: verdict cards, warnings, tables; readable without a style sheet."""

from html import escape
from typing import Any

import pandas as pd

from oelm_lib.analysis import confounds, statistics, tables
from oelm_lib.analysis.arms import arm_colours
from oelm_lib.analysis.frames import name, pairs

COUNTS = ("n", "gap_n")
"""Columns that stand beside every gap, whatever they hold."""
TONES = {statistics.PASS: "#0a7a55", statistics.FAIL: "#c0392b"}


class Html(str):
    """Text that notebooks show as HTML."""

    def _repr_html_(self) -> str:
        return str(self)


def verdict_cards(
    runs: pd.DataFrame, baseline: str | None = None, metric: str = tables.METRIC
) -> Html:
    """One card an arm: its gap, its interval and whether it meets the criterion; arguments as tables.verdicts."""
    judged = tables.verdicts(runs, baseline, metric)
    if judged.empty:
        return Html("<p>No arm has a run to judge yet; train some: make demo, or oelm run ID.</p>")
    colours = arm_colours(judged["arm"])
    return Html("".join(_card(row, colours[row["arm"]]) for row in judged.to_dict("records")))


def _card(row: dict[str, Any], colour: str) -> str:
    subject, _, words = row["sentence"].partition(": ")
    verdict = escape(row["verdict"])
    style = f"border-left:5px solid {colour};padding:.35em .9em;margin:.6em 0;max-width:58em"
    badge = (
        f"float:right;margin-left:1em;font-weight:650;color:{TONES.get(row['verdict'], 'inherit')}"
    )
    return (
        f"<div class='oelm-card' style='{style}'><span style='{badge}'>{verdict}</span>"
        f"<b>{escape(subject)}</b><br>{escape(words.removesuffix(': ' + row['verdict']))}</div>"
    )


def warnings(runs: pd.DataFrame, baseline: str | None = None, metric: str = tables.METRIC) -> Html:
    """What weakens the comparison, as a list; arguments as confounds.warnings."""
    found = confounds.warnings(runs, baseline, metric)
    items = "".join(f"<li>{escape(text)}</li>" for text in found)
    return Html(
        f"<ul class='oelm-warnings'>{items}</ul>"
        if found
        else "<p>Nothing found that weakens the comparison.</p>"
    )


def config_diff(runs: pd.DataFrame, baseline: str | None = None) -> pd.DataFrame:
    """Every key in which an arm differs from its baseline, one row a key and one column an arm."""
    rows = []
    for pair in pairs(runs, baseline):
        if pair.base is not None:
            arm = pair.arm.iloc[0]
            found = confounds.differences(pair.base.iloc[0], arm)
            for key, old, new, declared in found.itertuples(index=False):
                value = confounds.short(new) + ("" if declared else " (undeclared)")
                rows.append(
                    (arm["corpus"], key, confounds.short(old), f"{arm['arm']} ({name(arm)})", value)
                )
    table = pd.DataFrame(rows, columns=["corpus", "key", "baseline", "arm", "value"])
    wide = table.pivot_table(
        "value", ["corpus", "key", "baseline"], "arm", aggfunc="first", sort=False
    )
    wide = wide.rename_axis(columns=None).reset_index()
    for arm, corpus in table.groupby("arm")["corpus"].first().items():
        wide.loc[(wide["corpus"] == corpus) & wide[arm].isna(), arm] = "same"
    return wide.fillna("")


def table(frame: pd.DataFrame) -> Any:
    """Style a table: what is the same in all rows stands above it, what is empty is left out."""
    frame = frame.loc[:, frame.map(lambda value: value not in (None, "") and value == value).any()]
    same = [
        key
        for key in frame
        if len(frame) > 1 and key not in COUNTS and frame[key].map(str).nunique() == 1
    ]
    above = "; ".join(f"{_words(key)}: {tables.as_shown(key, frame[key].iloc[0])}" for key in same)
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
        tables.show(shown)
        .format_index(lambda key: escape(_words(key)), axis="columns")
        .set_table_styles(general)
    )
    return styled.set_table_styles(styles, overwrite=False).set_caption(escape(above))


def _words(key: Any) -> str:
    return str(key).replace("_", " ")
