"""What the study has found so far, in the few numbers that README and journal state."""

from typing import Any

import numpy as np
import pandas as pd

from oelm_lib.study import confirmation, exploration, study
from oelm_lib.study.confirmation import GAUSSIAN, LOG_SCALE, ORTHOGONAL


def answer(runs: pd.DataFrame) -> dict[str, Any] | None:
    """Stage 2 where all of its arms, both starts among them, have intervals; else stage 1; None where neither can say.

    Returns:
        parameters and tokens in millions, stage (confirmed or exploratory); rows of corpus, gap, low and high: cost
        (orthogonal, frozen, against the tuned baseline), start (against the Gaussian of its scale), scale (the Gaussian
        at the log's scale against that one); best: for each limit of the trained share its arm, share (at Medium-512),
        here (the share in these models) and such rows with their verdicts.
    """
    first, second, both = (
        exploration.explored(runs),
        confirmation.confirmed(runs),
        {ORTHOGONAL, GAUSSIAN},
    )
    confirmed = both <= set(second.get("arm", ())) and second["low"].notna().all()
    table = second if confirmed else first
    if not both <= set(table.get("arm", ())):
        return None
    if not confirmed:  # of a stage 2 that has just begun nothing is said
        runs = runs[~runs["stage"].str.startswith("stage2")]
    plain = runs[runs["arm"] == study.PLAIN].iloc[0]
    starts = confirmation.contrasts(runs) if confirmed else _explored_starts(first)
    named = confirmation.best(runs)
    best = []
    for limit, rows in named.groupby("within") if len(named) else ():
        shown = rows[rows["stage"] == "confirmed"] if confirmed else rows
        if len(shown):
            arm, share, here = shown.iloc[0][["arm", "trained_at_medium", "trained_here"]]
            best.append(
                {"limit": limit, "arm": arm, "share": share, "here": here, "rows": _rows(shown)}
            )
    return {
        "parameters": plain["parameters"]["total"] / 1e6,
        "tokens": plain["tokens"] / 1e6,
        "stage": "confirmed" if confirmed else "exploratory",
        "cost": _rows(table[table["arm"] == ORTHOGONAL]),
        "start": _rows(starts[starts["arm"] == ORTHOGONAL]),
        "scale": _rows(starts[starts["arm"] == LOG_SCALE]),
        "best": best,
    }


def _explored_starts(first: pd.DataFrame) -> pd.DataFrame:
    """Every arm against the Gaussian at their tuned rates, one seed."""
    losses = first.pivot_table("val_loss", "corpus", "arm")
    return (
        np.expm1(losses.sub(losses[GAUSSIAN], axis=0)).stack().dropna().rename("gap").reset_index()
    )


def _rows(table: pd.DataFrame) -> list[dict[str, Any]]:
    keys = ("corpus", "gap", "low", "high", "n", "within_1_%", "within_5_%")
    rows = table.reindex(columns=keys).to_dict("records")
    return [{key.removesuffix("_%"): value for key, value in row.items()} for row in rows]
