"""The first screen of a comparison: verdict cards, warnings, and the table of differing keys."""

from html import escape
from typing import Any

import pandas as pd

from oelm_lib.arms import arm_colour
from oelm_lib.compare import confounds
from oelm_lib.compare.pairs import METRIC, pairs
from oelm_lib.compare.verdict import details, verdicts
from oelm_lib.markup import Html
from oelm_lib.view.tables import verdict_html

CARD = "border-left:5px solid {};padding:.35em .9em;margin:.8em 0;max-width:50em"
SMALL = "font-size:.85em;opacity:.8"
NOTHING = "<p>No arm has a run to judge yet; train some: <code>make demo</code>, or "
NOTHING += "<code>oelm run ID</code>.</p>"


def verdict_cards(runs: pd.DataFrame, baseline: str | None = None, metric: str = METRIC) -> Html:
    """Return one card an arm: its verdict, what that means in words, and how it was reached.

    Args:
        runs, baseline, metric: Arguments of verdicts.
    """
    judged = verdicts(runs, baseline, metric).to_dict("records")
    return Html("".join(_card(row) for row in judged) or NOTHING)


def _card(row: dict[str, Any]) -> str:
    arm, words = escape(row["arm"]), escape(row["sentence"])
    where = f"{escape(row['id'])} {escape(details(row))}"
    return (
        f"<div class='oelm-card' style='{CARD.format(arm_colour(row['arm']))}'>"
        f"{verdict_html(row['verdict'])} &nbsp;<b>{arm}</b>{words.removeprefix(arm)}"
        f"<div style='{SMALL}'>{where}</div></div>"
    )


def warning_list(runs: pd.DataFrame, baseline: str | None = None, metric: str = METRIC) -> Html:
    """Return what weakens the comparison as a list, each once; arguments as verdicts."""
    found = confounds.warnings(runs, baseline, metric)
    if not found:
        return Html("<p>Nothing found that weakens the comparison.</p>")
    items = "".join(f"<li>{escape(text)}.</li>" for text in found)
    return Html(f"<ul class='oelm-warnings'>{items}</ul>")


def config_diff(runs: pd.DataFrame, baseline: str | None = None) -> pd.DataFrame:
    """Return every key in which an arm differs from its baseline, a row a key, a column an arm."""
    rows = []
    for pair in pairs(runs, baseline):
        if pair.base is None:
            continue
        arm = pair.arm.iloc[0]
        table = confounds.differences(pair.base.iloc[0], arm)
        for key, old, new, declared in table.itertuples(index=False):
            rows.append(
                {
                    "corpus": arm["corpus"],
                    "key": key,
                    "baseline": confounds.short(old),
                    "arm": f"{arm['arm']} ({pair.arm_name})",
                    "value": confounds.short(new) + ("" if declared else " (undeclared)"),
                }
            )
    table = pd.DataFrame(rows, columns=["corpus", "key", "baseline", "arm", "value"])
    index = ["corpus", "key", "baseline"]
    wide = table.pivot_table("value", index, "arm", aggfunc="first", sort=False)
    wide = wide.rename_axis(columns=None).reset_index()
    for arm, corpus in table.groupby("arm")["corpus"].first().items():
        wide.loc[(wide["corpus"] == corpus) & wide[arm].isna(), arm] = "same"
    return wide.fillna("")
