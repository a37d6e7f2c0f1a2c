"""What a study's claims come to: intervals over its confirmation runs, verdicts, and the ladder."""

import math
from dataclasses import dataclass

import numpy as np

from oelm_lib import stats
from oelm_lib.model.cost import parameter_numbers
from oelm_lib.stats import Interval
from oelm_lib.study.cell import BASE_SIZE, Cell
from oelm_lib.study.grid import Comparison, Grid
from oelm_lib.study.plan import Plan
from oelm_lib.study.schema import Claim, substance
from oelm_lib.study.tuning import DIVERGED, INTERIOR
from oelm_lib.view.tables import seeds_text

NOT_RUN, INCOMPLETE = "NOT RUN YET", "INCOMPLETE"
WAITING = (NOT_RUN, INCOMPLETE)
FLAT, GROWS, SHRINKS = "FLAT", "GROWS", "SHRINKS"


@dataclass(frozen=True)
class Limit:
    """One question that is read off an interval, and its answer."""

    text: str
    """`at most +5 %` or `equal within +-1 %`."""
    verdict: str
    seeds: str
    """How many seeds would decide it; empty where it is decided."""

    @property
    def short_text(self) -> str:
        """Text for the cell of a table: `≤ 5 %` for `at most +5 %`."""
        return self.text.replace("at most +", "≤ ")


@dataclass(frozen=True)
class Judgement:
    """A claim on one corpus."""

    claim: Claim
    corpus: str
    arm: str
    """The arm, as the claim names it; of a choice that is made, the arm it chose."""
    baseline: str
    interval: Interval
    limits: tuple[Limit, ...]
    planned: int
    """Seeds that the claim is judged by."""
    trained_share: float | None
    """Share of the Q/K weights that the arm trains, in the models that are run."""
    at_edge: tuple[str, ...]
    """Of arm and baseline, those whose tuned rate is not an interior minimum."""
    document_error: float
    """Standard error of the gap over test documents, in nats; nan: unknown."""
    declared: bool
    """Whether the claim was in the plan when confirmation began."""

    @property
    def name(self) -> str:
        """The claim's own name of the arm; a choice's with the arm it chose."""
        named = self.claim.equal[0] if self.claim.equal else self.claim.arm
        return named if named == self.arm else f"{named} ({self.arm or 'tuning will choose it'})"

    @property
    def is_chosen(self) -> bool:
        """Whether the claim names a choice, and tuning has made it."""
        return bool(self.arm) and self.name != self.arm

    @property
    def other(self) -> str:
        """The arm that the claim's arm is compared with."""
        return self.claim.equal[1] if self.claim.equal else self.baseline or "its baseline"

    @property
    def ended(self) -> int:
        """Seeds that have ended, diverged ones included."""
        return self.interval.n + self.interval.failed

    @property
    def is_complete(self) -> bool:
        """Whether all seeds have ended."""
        return self.limits[0].verdict not in WAITING

    @property
    def late_mark(self) -> str:
        """What follows the number of seeds of a claim that was added after confirmation began."""
        return "" if self.declared else ", claimed late"

    @property
    def planned_text(self) -> str:
        """Seeds that the claim is judged by, in words: `24 seeds, claimed late`."""
        return f"{self.planned} seeds{self.late_mark}"


def judge(grid: Grid, frozen: Plan | None = None) -> list[Judgement]:
    """Judge every claim of a study on every corpus that it is about.

    Args:
        frozen: The plan as it stood when confirmation began.
    """
    declared = [substance(claim) for claim in (frozen or grid.plan).claims]
    return [
        _judge_claim(grid, claim, corpus, substance(claim) in declared)
        for claim in grid.plan.claims
        for corpus in grid.plan.claim_corpora(claim)
    ]


def latest(judgements: list[Judgement]) -> list[Judgement]:
    """Return one judgement for each question and corpus.

    Where a later claim added seeds: the complete one with the most seeds, else the first.
    """
    groups: dict[tuple[Claim, str], list[Judgement]] = {}
    for one in judgements:
        groups.setdefault((one.claim.question, one.corpus), []).append(one)
    return [
        max([one for one in group if one.is_complete] or group[:1], key=lambda one: one.planned)
        for group in groups.values()
    ]


def family_size(plan: Plan, family: str, corpus: str) -> int:
    """Number of intervals of a family on a corpus: one for each pair of arms and number of seeds.

    The limits of a claim share its interval. More seeds for an old question are a second look at
    it, with an interval of its own.
    """
    intervals = {
        (
            claim.gaps,
            claim.equal or (claim.arm, claim.against or _baseline(plan, claim.arm)),
            claim.seeds or plan.confirm.seeds.count,
        )
        for claim in plan.claims
        if claim.family == family and corpus in plan.claim_corpora(claim)
    }
    return len(intervals)


def _baseline(plan: Plan, name: str) -> str:
    return plan.arms[name].against if name in plan.arms else f"the baseline of {name}"


def _judge_claim(grid: Grid, claim: Claim, corpus: str, declared: bool) -> Judgement:
    k = family_size(grid.plan, claim.family, corpus)
    comparison = grid.comparison(claim, corpus)
    if comparison is None:
        interval = stats.paired_interval([], k)
        limits = tuple(Limit(text, NOT_RUN, "") for text, *_ in _questions(claim))
        planned = len(grid.plan.confirm_seeds(claim.seeds))
        return Judgement(
            claim, corpus, "", "", interval, limits, planned, None, (), math.nan,
            declared,
        )  # fmt: skip
    interval, document_error = compare_cells(grid, comparison, k)
    fits = {cell: grid.fit(cell) for cell in comparison.cells if grid.is_tuned(cell)}
    unstable = any(fit.state == DIVERGED for fit in fits.values())
    done = interval.n + interval.failed
    limits = []
    for text, bounds, judged in _questions(claim):
        if unstable:
            limits.append(Limit(text, stats.UNSTABLE, ""))
        elif done < len(comparison.seeds):
            limits.append(Limit(text, INCOMPLETE if done else NOT_RUN, ""))
        else:
            limits.append(Limit(text, judged(interval), seeds_text(interval, bounds)))
    return Judgement(
        claim=claim,
        corpus=corpus,
        arm=comparison.cell.arm,
        baseline=comparison.baseline.arm,
        interval=interval,
        limits=tuple(limits),
        planned=len(comparison.seeds),
        trained_share=grid.trained_share(comparison.cell.arm),
        at_edge=tuple(cell.arm for cell, fit in fits.items() if fit.state != INTERIOR),
        document_error=document_error,
        declared=declared,
    )


def _questions(claim: Claim) -> list[tuple]:
    """Text, bounds in nats and verdict function of each limit of a claim."""
    if claim.equal:
        margin = claim.within
        text = f"equal {'gaps ' if claim.gaps else ''}within ±{100 * margin:g} %"
        bounds = stats.bounds_within(margin)
        return [(text, bounds, lambda interval: stats.equal_within(interval, margin))]
    return [
        (
            f"at most +{100 * limit:g} %",
            stats.bounds_at_most(limit),
            lambda interval, limit=limit: stats.at_most(interval, limit),
        )
        for limit in claim.at_most
    ]


def compare_cells(grid: Grid, comparison: Comparison, k: int) -> tuple[Interval, float]:
    """Return the interval of a comparison over its declared seeds, and its error over documents."""
    losses = grid.compared_losses(comparison)
    interval = stats.paired_interval(stats.paired_differences(*losses), k)
    if comparison.offsets:
        return interval, math.nan
    own, base = (
        {run.seed: run.test_documents for run in grid.confirmation_records(cell)}
        for cell in (comparison.cell, comparison.baseline)
    )
    both = [seed for seed in comparison.seeds if own.get(seed) and base.get(seed)]
    error = stats.document_error([(own[seed], base[seed]) for seed in both])
    return stats.with_document_error(interval, error), error


@dataclass(frozen=True)
class Slope:
    """How the gap of an arm changes with the size of the model, on one corpus."""

    arm: str
    baseline: str
    corpus: str
    sizes: tuple[tuple[str, float, Interval], ...]
    """Size, parameters of the baseline, and the gap's own 95 % interval."""
    interval: Interval
    """Change of the difference in nats per decade of parameters."""
    verdict: str
    seeds: str
    """How many seeds would decide whether the gap is flat; empty where that is decided."""
    planned: int


def judge_ladder(grid: Grid) -> list[Slope]:
    """Judge the slope of every arm of the ladder, from one slope for each seed."""
    ladder = grid.plan.ladder
    groups: dict[tuple[str, str], list[Comparison]] = {}
    for comparison in grid.ladder_comparisons():
        key = (comparison.cell.arm, comparison.cell.corpus)
        groups.setdefault(key, []).append(comparison)
    return [_slope(grid, comparisons, ladder.flat, len(groups)) for comparisons in groups.values()]


def _slope(grid: Grid, comparisons: list[Comparison], flat: float, k: int) -> Slope:
    comparisons = sorted(comparisons, key=lambda one: _parameters(grid, one.baseline))
    sizes, differences = [], []
    for comparison in comparisons:
        interval, _ = compare_cells(grid, comparison, 1)
        parameters = _parameters(grid, comparison.baseline)
        sizes.append((comparison.cell.size, parameters, interval))
        own, base = map(grid.confirmed_losses, (comparison.cell, comparison.baseline))
        differences.append(
            {
                seed: stats.paired_differences({seed: own[seed]}, base)[0]
                for seed in comparison.seeds
                if seed in own and seed in base
            }
        )
    decades = np.log10([parameters for _, parameters, _ in sizes])
    weights = (decades - decades.mean()) / np.sum((decades - decades.mean()) ** 2)
    shared = sorted(set.intersection(*map(set, differences)))
    slopes = [float(weights @ [nats[seed] for nats in differences]) for seed in shared]
    interval = stats.paired_interval(slopes, k)
    first, planned = comparisons[0], len(comparisons[0].seeds)
    verdict = _slope_verdict(interval, flat, planned)
    return Slope(
        arm=first.cell.arm,
        baseline=first.baseline.arm,
        corpus=first.cell.corpus,
        sizes=tuple(sizes),
        interval=interval,
        verdict=verdict,
        seeds=seeds_text(interval, stats.bounds_within(flat)) if interval.n == planned else "",
        planned=planned,
    )


def _slope_verdict(interval: Interval, flat: float, planned: int) -> str:
    done = interval.n + interval.failed
    if done < planned:
        return INCOMPLETE if done else NOT_RUN
    verdict = stats.equal_within(interval, flat)
    if verdict == stats.YES:
        return FLAT
    if verdict == stats.NO:
        return GROWS if interval.mean > 0 else SHRINKS
    return verdict


def _parameters(grid: Grid, cell: Cell) -> float:
    """Parameters of a cell's model, of which no record is needed."""
    cfg = grid.plan.config(cell, grid.plan.start(cell))
    return float(parameter_numbers(cfg.model)["total"])


def exploration(grid: Grid) -> list[tuple[str, str, float | None, float]]:
    """Arm, baseline, tuned gap in nats on validation (None: not tuned) and trained share, by gap.

    Of the first corpus, at the fitted minima; the arms that are no baseline only.
    """
    corpus = grid.plan.corpora[0]
    rows = [
        (name, arm.against, grid.tuned_gap(name, corpus, BASE_SIZE), grid.trained_share(name))
        for name, arm in grid.plan.arms.items()
        if arm.against
    ]
    return sorted(rows, key=lambda row: (row[2] is None, row[2] or 0.0))
