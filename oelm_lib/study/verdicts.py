"""What a study's claims come to: intervals over its confirmation runs, and verdicts."""

from dataclasses import dataclass

from oelm_lib import stats
from oelm_lib.stats import Interval
from oelm_lib.study.grid import Comparison, Grid
from oelm_lib.study.plan import Plan
from oelm_lib.study.schema import Claim, substance
from oelm_lib.view.gaps import seeds_text

NOT_RUN, INCOMPLETE = "NOT RUN YET", "INCOMPLETE"
WAITING = (NOT_RUN, INCOMPLETE)
"""Words in place of a verdict while runs are missing."""


@dataclass(frozen=True)
class Limit:
    """One question that is read off an interval, and its answer."""

    text: str
    """`at most +5 %`, `equal within ±1 %` or `equal gaps within ±1 %`."""
    phrase: str
    """Text for a sentence whose subject says what is compared, perplexities or gaps."""
    short_text: str
    """Text for the cell of a table: `≤ 5 %` for `at most +5 %`."""
    missed: str
    """Phrase of a limit that does not hold: `more than +5 %`, `not equal within ±1 %`."""
    bound: float
    """The gap in it, e.g. 0.05."""
    verdict: str
    to_decide: str
    """How many seeds, or what else, would decide it; empty where it is decided."""


@dataclass(frozen=True)
class Judgement:
    """A claim on one corpus."""

    claim: Claim
    corpus: str
    declared: bool
    """Whether the claim was in the plan, for this corpus, when confirmation began."""
    planned: int
    """Seeds that the claim is judged by."""
    interval: Interval
    limits: tuple[Limit, ...]
    arm: str = ""
    """The first arm, or the one that a choice chose; empty while the choice is not made."""
    baseline: str = ""
    """The second arm, likewise."""
    trained_share: float | None = None
    """Share of the Q/K weights that the arm trains, in the models that are run."""
    imprecise: bool = False
    """Whether the tuned rate of arm or baseline is known less well than the plan asks."""

    @property
    def name(self) -> str:
        """Name of the arm in the claim; a choice is followed by the selected arm in brackets."""
        name = self.claim.first
        return name if name == self.arm else f"{name} ({self.arm or 'tuning will choose it'})"

    @property
    def is_chosen(self) -> bool:
        """Whether the claim names a choice, and tuning has made it."""
        return bool(self.arm) and self.arm != self.claim.first

    @property
    def other(self) -> str:
        """The arm that the claim's arm is compared with."""
        return self.baseline or self.claim.second or "its baseline"

    @property
    def against(self) -> str:
        """What follows `against`: the other arm, or its gap where two gaps are compared."""
        return f"the gap of {self.other}" if self.claim.gaps else self.other

    @property
    def ended(self) -> int:
        """Seeds that have ended, diverged ones included."""
        return self.interval.pairs

    @property
    def is_begun(self) -> bool:
        """Whether a seed has ended, or tuning has ended without a stable learning rate."""
        return self.limits[0].verdict != NOT_RUN

    @property
    def is_complete(self) -> bool:
        """Whether all seeds have ended, or tuning has ended without a stable learning rate."""
        return self.limits[0].verdict not in WAITING

    @property
    def late_mark(self) -> str:
        """Text after the number of seeds: ", claimed late" if the claim is, else nothing."""
        return late_mark(self.declared)

    @property
    def planned_text(self) -> str:
        """Seeds that the claim is judged by, in words: `24 seeds, claimed late`."""
        return f"{self.planned} seeds{self.late_mark}"


def judge(grid: Grid, registered: Plan | None = None) -> list[Judgement]:
    """Judge every claim of a study on every corpus that it is about.

    Args:
        registered: The plan as it stood when confirmation began.
    """
    before = registered or grid.plan
    declared = [(substance(claim), corpus) for claim, corpus in before.claims_by_corpus()]
    return [
        _judge_claim(grid, claim, corpus, (substance(claim), corpus) in declared)
        for claim, corpus in grid.plan.claims_by_corpus()
    ]


def late_mark(declared: bool) -> str:
    """Return what marks an answer whose question was added after confirmation began, else ""."""
    return "" if declared else ", claimed late"


def family_size(plan: Plan, family: str, corpus: str) -> int:
    """Return the number of intervals of a family: one per pair of arms and number of seeds.

    The limits of a claim share its interval. More seeds for an old question are a second look at
    it, with an interval of its own.
    """
    intervals = {
        (
            claim.gaps,
            claim.first,
            claim.second or _baseline(plan, claim.first),
            claim.seeds or plan.confirm.seeds.count,
        )
        for claim in plan.claims
        if claim.family == family and corpus in plan.claim_corpora(claim)
    }
    return len(intervals)


def _baseline(plan: Plan, name: str) -> str:
    return plan.arms[name].against if name in plan.arms else f"the baseline of {name}"


def _judge_claim(grid: Grid, claim: Claim, corpus: str, declared: bool) -> Judgement:
    comparison = grid.comparison(claim, corpus)
    k = family_size(grid.plan, claim.family, corpus)
    planned = len(grid.plan.confirm_seeds(claim.seeds))
    if comparison is None:
        interval = stats.paired_interval([], k)
        limits = _limits(claim, interval, NOT_RUN)
        return Judgement(claim, corpus, declared, planned, interval, limits)
    interval = comparison_interval(grid, comparison, k)
    return Judgement(
        claim=claim,
        corpus=corpus,
        declared=declared,
        planned=planned,
        interval=interval,
        limits=_limits(claim, interval, verdict_instead(grid, [comparison], interval)),
        arm=comparison.first.arm,
        baseline=comparison.second.arm,
        trained_share=grid.plan.trained_share(comparison.first.arm),
        imprecise=any(grid.is_imprecise(cell) for cell in comparison.cells),
    )


def verdict_instead(grid: Grid, comparisons: list[Comparison], interval: Interval) -> str | None:
    """Return the word that replaces the verdict read off an interval; None: nothing does.

    UNSTABLE where a cell has no stable learning rate, a word of WAITING where seeds are missing.
    """
    if any(grid.has_no_rate(cell) for comparison in comparisons for cell in comparison.cells):
        return stats.UNSTABLE
    if interval.pairs >= len(comparisons[0].seeds):
        return None
    return INCOMPLETE if interval.pairs else NOT_RUN


def unstable_reason(interval: Interval) -> str:
    """Return why a verdict is UNSTABLE."""
    return "seeds diverged" if interval.failed else "no learning rate is stable"


def _limits(claim: Claim, interval: Interval, word: str | None) -> tuple[Limit, ...]:
    """Judge each bound of a claim; `word`: what stands in place of verdicts."""
    return tuple(_limit(claim, bound, interval, word) for bound in claim.bounds)


def _limit(claim: Claim, bound: float, interval: Interval, word: str | None) -> Limit:
    """Judge one bound of a claim."""
    size = f"{100 * bound:g} %"
    if claim.equal:
        phrase = f"equal within ±{size}"
        text = short_text = f"equal gaps within ±{size}" if claim.gaps else phrase
        missed = f"not {phrase}"
        verdict, nats = stats.equal_within(interval, bound), stats.bounds_within(bound)
    else:
        text = phrase = f"at most +{size}"
        short_text, missed = f"≤ {size}", f"more than +{size}"
        verdict, nats = stats.at_most(interval, bound), stats.bounds_at_most(bound)
    return Limit(
        text=text,
        phrase=phrase,
        short_text=short_text,
        missed=missed,
        bound=bound,
        verdict=word or verdict,
        to_decide="" if word else seeds_text(interval, nats),
    )


def comparison_interval(grid: Grid, comparison: Comparison, k: int) -> Interval:
    """Return the interval of a comparison over its declared seeds, with its error over documents.

    The error over documents is unknown where two gaps are compared.
    """
    losses = grid.compared_losses(comparison)
    interval = stats.paired_interval(stats.paired_differences(*losses), k)
    if comparison.own_baselines:
        return interval
    name = f"{grid.plan.confirm.split}_documents"
    own, base = (
        {run.seed: getattr(run, name) for run in grid.confirmation_records(cell)}
        for cell in (comparison.first, comparison.second)
    )
    seeds = [seed for seed in comparison.seeds if own.get(seed) and base.get(seed)]
    error = stats.document_error([(own[seed], base[seed]) for seed in seeds])
    return stats.with_document_error(interval, error)
