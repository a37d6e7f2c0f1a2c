"""Which arm is judged against which baseline."""

from typing import NamedTuple

import pandas as pd

from oelm_lib.config import load_config
from oelm_lib.runs.frames import name  # noqa: F401


class Pair(NamedTuple):
    """An arm and the baseline it is judged against: runs of one variant each; base None with the reason."""

    arm: pd.DataFrame
    base: pd.DataFrame | None
    reason: str = ""

    def shared(self, metric: str) -> tuple[pd.DataFrame, pd.DataFrame]:
        """The arm's and the baseline's comparable runs of the seeds both have, in one order, by seed."""
        if self.base is None:
            return self.arm.iloc[:0], self.arm.iloc[:0]
        first, second = (
            comparable(rows, metric).set_index("seed") for rows in (self.arm, self.base)
        )
        seeds = first.index.intersection(second.index).sort_values()
        return first.loc[seeds], second.loc[seeds]


def comparable(runs: pd.DataFrame, metric: str = "final_val_loss") -> pd.DataFrame:
    """The runs that have a finite `metric` (only done ones do) and a readable config."""
    return runs[runs["experiment"].notna() & runs[metric].notna()]


def pairs(runs: pd.DataFrame, baseline: str | None = None) -> list[Pair]:
    """Pair every arm with its baseline: same source, corpus, tokenizer, and the same overrides where there is one.

    Args:
        baseline: Experiment id or run folder; where it does not fit, and by default, each experiment's compare_to.

    Raises:
        UserError: `baseline` is neither a known experiment nor a run folder of `runs`.
    """
    if baseline and not (runs["variant"] == baseline).any():
        load_config(baseline)
    groups = runs[runs["experiment"].notna()].groupby(["source", "variant"], sort=False)
    variants = [(rows.iloc[0], rows) for _, rows in groups]
    found = []
    for row, arm in variants:
        own = row["experiment"].compare_to
        fits = [_find(variants, row, wanted) for wanted in (baseline, own) if wanted]
        base = next((fit for fit in fits if fit is not None), None)
        if base is not None and base is not arm:
            found.append(Pair(arm, base))
        elif base is None and own:
            found.append(
                Pair(arm, None, f"no run of its baseline {own} on this corpus and tokenizer")
            )
    return found


def families(runs: pd.DataFrame, baseline: str | None = None) -> list[list[Pair]]:
    """The pairs that share a baseline, which are judged together."""
    found: dict[str | None, list[Pair]] = {}
    for pair in pairs(runs, baseline):
        found.setdefault(None if pair.base is None else pair.base.iloc[0]["variant"], []).append(
            pair
        )
    return list(found.values())


def _find(
    variants: list[tuple[pd.Series, pd.DataFrame]], row: pd.Series, wanted: str
) -> pd.DataFrame | None:
    """The runs of the wanted baseline that fit `row` best, or None."""
    same = ["source", "corpus", "tokenizer"]
    fits = [(first, rows) for first, rows in variants if wanted in (first["id"], first["variant"])]
    fits = [(first, rows) for first, rows in fits if all(first[key] == row[key] for key in same)]

    def distance(fit: tuple[pd.Series, pd.DataFrame]) -> tuple[bool, bool]:
        experiment = fit[0]["experiment"]
        return experiment.science_overrides != row[
            "experiment"
        ].science_overrides, experiment.kind != "experiment"

    return min(fits, key=distance, default=(None, None))[1]
