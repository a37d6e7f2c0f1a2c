"""Whether the gap of an arm grows or shrinks with the size of the model: the ladder of a study."""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from oelm_lib import stats
from oelm_lib.model.cost import parameter_counts
from oelm_lib.stats import Interval
from oelm_lib.study.cell import Cell
from oelm_lib.study.grid import Comparison, Grid
from oelm_lib.study.plan import Plan
from oelm_lib.study.verdicts import WAITING, comparison_interval, late_mark, verdict_instead
from oelm_lib.view.gaps import seeds_text

FLAT, GROWS, SHRINKS = "FLAT", "GROWS", "SHRINKS"


class SizeGap(NamedTuple):
    """The gap of an arm at one size of the model."""

    size: str
    parameters: float
    """Of the baseline."""
    interval: Interval
    """The gap's own 95 % interval."""


@dataclass(frozen=True)
class Slope:
    """How the gap of an arm changes with the size of the model, on one corpus."""

    arm: str
    baseline: str
    corpus: str
    sizes: tuple[SizeGap, ...]
    interval: Interval
    """Change of the difference in nats per decade of parameters; over seeds alone."""
    verdict: str
    to_decide: str
    """How many seeds would decide whether the gap is flat; empty where that is decided."""
    planned: int
    declared: bool
    """Whether the ladder was in the plan when confirmation began."""

    @property
    def late_mark(self) -> str:
        """What follows the corpus of a slope that was added after confirmation began."""
        return late_mark(self.declared)

    @property
    def is_complete(self) -> bool:
        """Whether all seeds have ended at every size, or tuning without a stable rate at one."""
        return self.verdict not in WAITING


def judge_ladder(grid: Grid, registered: Plan | None = None) -> list[Slope]:
    """Judge the slope of every arm of the ladder, from one slope for each seed.

    Args:
        registered: The plan as it stood when confirmation began; its ladder can't have changed.
    """
    declared = registered is None or registered.ladder is not None
    groups: dict[tuple[str, str], list[Comparison]] = {}
    for comparison in grid.ladder_comparisons():
        key = (comparison.first.arm, comparison.first.corpus)
        groups.setdefault(key, []).append(comparison)
    return [_slope(grid, comparisons, len(groups), declared) for comparisons in groups.values()]


def _slope(grid: Grid, comparisons: list[Comparison], k: int, declared: bool) -> Slope:
    """Judge an arm from its comparisons, one a size; `k`: slopes in the family."""
    comparisons = sorted(comparisons, key=lambda comparison: _parameters(grid, comparison.second))
    parameters = [_parameters(grid, comparison.second) for comparison in comparisons]
    arm, baseline = comparisons[0].first, comparisons[0].second
    planned, flat = len(comparisons[0].seeds), grid.plan.ladder.flat
    interval = stats.paired_interval(_seed_slopes(grid, comparisons, parameters), k)
    missing = verdict_instead(grid, comparisons, interval)
    return Slope(
        arm=arm.arm,
        baseline=baseline.arm,
        corpus=arm.corpus,
        sizes=tuple(
            SizeGap(comparison.first.size, count, comparison_interval(grid, comparison, 1))
            for comparison, count in zip(comparisons, parameters, strict=True)
        ),
        interval=interval,
        verdict=missing or _verdict(interval, flat),
        to_decide="" if missing else seeds_text(interval, stats.bounds_within(flat)),
        planned=planned,
        declared=declared,
    )


def _seed_slopes(grid: Grid, comparisons: list[Comparison], parameters: list[float]) -> list[float]:
    """Return the slope of each seed that all sizes share, in nats per decade of parameters.

    It is that of least squares; nan where a run diverged.
    """
    losses = [grid.compared_losses(comparison) for comparison in comparisons]
    shared = sorted(set.intersection(*({*own} & {*base} for own, base in losses)))
    nats = [
        stats.paired_differences({seed: own[seed] for seed in shared}, base) for own, base in losses
    ]
    decades = np.log10(parameters)
    weights = (decades - decades.mean()) / np.sum((decades - decades.mean()) ** 2)
    return (np.transpose(nats) @ weights).tolist()


def _verdict(interval: Interval, flat: float) -> str:
    verdict = stats.equal_within(interval, flat)
    if verdict == stats.NO:
        return GROWS if interval.mean > 0 else SHRINKS
    return FLAT if verdict == stats.YES else verdict


def _parameters(grid: Grid, cell: Cell) -> float:
    """Return the number of parameters of a cell's model, computed from its config."""
    return float(parameter_counts(grid.plan.config(cell).model)["total"])
