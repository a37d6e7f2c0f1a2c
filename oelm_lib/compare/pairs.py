"""Pair each arm with the baseline it is judged against."""

import contextlib
from typing import NamedTuple

import pandas as pd

from oelm_lib import stats
from oelm_lib.config import Experiment, load_config
from oelm_lib.errors import UserError
from oelm_lib.runs.names import arm_id

METRIC = "final_val_loss"
"""Loss over the whole validation split with the last weights: what arms are compared by."""
ENDED = ("done", "failed")
"""States of a run that count as a result: a loss, or its absence."""


class Pair(NamedTuple):
    """An arm and its baseline.

    Attributes:
        arm, base: Runs (rows of load_runs) of one variant each; base is None where no run of the
            baseline fits, or where the arm was to be frozen and never was.
        reason: Why base is None.
    """

    arm: pd.DataFrame
    base: pd.DataFrame | None
    reason: str = ""

    @property
    def arm_id(self) -> str:
        """Experiment id, or folder of a rehearsal."""
        return arm_id(self.arm.iloc[0].variant)

    @property
    def base_id(self) -> str | None:
        """The same of the baseline; None without one."""
        return None if self.base is None else arm_id(self.base.iloc[0].variant)

    def shared(self) -> tuple[pd.DataFrame, pd.DataFrame]:
        """Return the comparable runs of the seeds that both have, indexed and ordered by seed."""
        if self.base is None:
            return self.arm.iloc[:0], self.arm.iloc[:0]
        arm, base = (
            comparable(runs).set_index("seed", drop=False) for runs in (self.arm, self.base)
        )
        seeds = arm.index.intersection(base.index).sort_values()
        return arm.loc[seeds], base.loc[seeds]

    def run_names(self) -> dict[str, str]:
        """Return run of the arm -> run of the baseline with its seed, whatever their states."""
        if self.base is None:
            return {}
        shared = self.arm.merge(self.base, on="seed")
        return dict(zip(shared["run_x"], shared["run_y"], strict=True))

    def differences(self) -> list[float]:
        """Return arm minus baseline in nats by seed; nan where a run diverged or failed."""
        if self.base is None:
            return []
        return stats.paired_differences(ended_losses(self.arm), ended_losses(self.base))

    def failed_runs(self) -> set[str]:
        """Return the runs without a loss whose seed has ended on both sides: a pair that failed."""
        if self.base is None:
            return set()
        sides = [_ended(self.arm), _ended(self.base)]
        shared = set(sides[0]["seed"]) & set(sides[1]["seed"])
        return {
            run
            for side in sides
            for run in side.loc[side["seed"].isin(shared) & side[METRIC].isna(), "run"]
        }


def comparable(runs: pd.DataFrame) -> pd.DataFrame:
    """Return the runs that have a finite METRIC (only done ones do) and a readable config."""
    return runs[runs["experiment"].notna() & runs[METRIC].notna()]


def pairs(runs: pd.DataFrame, baseline: str | None = None) -> list[Pair]:
    """Pair every arm with its baseline.

    The baseline has the same source, corpus and tokenizer, and the same overrides where such a run
    exists.

    Args:
        runs: Frame of load_runs.
        baseline: Experiment id or run folder; where it does not fit, and by default, each
            experiment's compare_to, as its file says now.

    Raises:
        UserError: `baseline` is neither a known experiment nor a run folder of `runs`.
    """
    if baseline and not runs[["id", "variant"]].eq(baseline).any(axis=None):
        baseline = load_config(baseline).id  # demo-01 is DEMO-01
    groups = runs[runs["experiment"].notna()].groupby(["source", "variant"], sort=False)
    variants = [group for _, group in groups]
    paired = []
    for arm in variants:
        own, _ = declaration(arm.iloc[0]["experiment"])
        names = [name for name in (baseline, own) if name]
        base = _baseline_runs(variants, arm.iloc[0], names)
        if base is None and own:
            reason = f"no run of its baseline {own} among these runs on this corpus and tokenizer"
            paired.append(Pair(arm, None, reason))
        elif base is not None and base is not arm:
            problem = arm.iloc[0]["experiment"].freeze_problem
            paired.append(Pair(arm, None if problem else base, problem))
    return paired


def families(runs: pd.DataFrame, baseline: str | None = None) -> list[list[Pair]]:
    """Return the pairs by baseline: the comparisons that are judged together."""
    by_baseline: dict[tuple, list[Pair]] = {}
    for pair in pairs(runs, baseline):
        key = () if pair.base is None else tuple(pair.base.iloc[0][["source", "variant"]])
        by_baseline.setdefault(key, []).append(pair)
    return list(by_baseline.values())


def declaration(experiment: Experiment) -> tuple[str | None, frozenset[str]]:
    """Return compare_to and changes as the experiment's file says now.

    Where the file is gone or cannot be read, they are as recorded.
    """
    with contextlib.suppress(UserError):
        experiment = load_config(experiment.id)
    return experiment.compare_to, frozenset(experiment.changes)


def ended_losses(runs: pd.DataFrame) -> dict[int, float]:
    """Return seed -> loss of the runs that ended; nan: diverged or failed."""
    ended = _ended(runs)
    return dict(zip(ended["seed"], ended[METRIC], strict=True))


def _ended(runs: pd.DataFrame) -> pd.DataFrame:
    return runs[runs["experiment"].notna() & runs["state"].isin(ENDED)]


def _baseline_runs(
    variants: list[pd.DataFrame], arm: pd.Series, names: list[str]
) -> pd.DataFrame | None:
    """Return the runs that fit an arm best, of the first name of a baseline that has any."""

    def distance(runs: pd.DataFrame) -> tuple[bool, bool]:
        experiment = runs.iloc[0]["experiment"]
        other_overrides = experiment.science_overrides != arm["experiment"].science_overrides
        return other_overrides, experiment.kind != "experiment"

    same_text = ["source", "corpus", "tokenizer"]
    fitting = [runs for runs in variants if runs.iloc[0][same_text].equals(arm[same_text])]
    for name in names:
        named = [runs for runs in fitting if name in runs.iloc[0][["id", "variant"]].tolist()]
        if named:
            return min(named, key=distance)
    return None
