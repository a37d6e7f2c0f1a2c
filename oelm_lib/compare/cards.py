"""What a comparison says in words: verdict cards, warnings, tables; readable without a style sheet."""

from html import escape
from typing import Any

import pandas as pd

from oelm_lib import stats as statistics
from oelm_lib.arms import arm_colours
from oelm_lib.compare import confounds, tables
from oelm_lib.compare.pairs import name, pairs
from oelm_lib.view.tables import Html

"""Columns that stand beside every gap, whatever they hold."""
TONES = {statistics.PASS: "#0a7a55", statistics.FAIL: "#c0392b"}


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
