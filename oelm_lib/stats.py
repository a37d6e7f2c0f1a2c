"""Paired intervals, verdicts and power: one procedure for the comparison and for studies.

A comparison is a set of differences of a loss, one for each seed that both arms share, in nats per
token. Its interval is Student's t at 1 - ALPHA / k for the k comparisons of its family
(Bonferroni), and its verdict is read off that interval. A gap is a perplexity ratio minus 1:
exp(difference) - 1.
"""

import math
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from oelm_lib.units import perplexity

__all__ = [
    "ALPHA", "FAIL", "INCONCLUSIVE", "NO", "NOT_SHOWN", "PASS", "UNKNOWN", "UNSTABLE", "YES",
    "Interval", "at_most", "bounds_at_most", "bounds_within", "deciding_seeds", "document_error",
    "equal_within", "gap", "is_open", "paired_differences", "paired_interval", "power",
    "with_document_error",
]  # fmt: skip

ALPHA = 0.05
"""Chance that any interval of a family misses its true difference."""
POWER = 0.8
LARGEST_PROPOSAL = 1000
"""Largest number of seeds that deciding_seeds proposes."""
FEW_SEEDS = 8
"""Fewer seeds than this are warned of (docs/reading-a-verdict.md)."""
RESAMPLES, RESAMPLES_AT_ONCE = 1000, 100
"""Draws of the bootstrap over documents."""
PASS, FAIL, INCONCLUSIVE = "PASS", "FAIL", "INCONCLUSIVE"
YES, NO, NOT_SHOWN = "YES", "NO", "NOT SHOWN"
UNKNOWN, UNSTABLE = "UNKNOWN INTERVAL", "UNSTABLE"
Bounds = tuple[float, float]


@dataclass(frozen=True)
class Interval:
    """Mean of paired differences in nats with its t-interval; bounds are nan below two pairs."""

    mean: float
    low: float
    high: float
    n: int
    """Pairs with a finite difference."""
    sd: float
    """Standard deviation of the differences."""
    confidence: float
    k: int
    """Comparisons in the family that this interval belongs to."""
    failed: int
    """Pairs of which a run diverged or failed; any makes the verdict UNSTABLE."""
    document_error: float = math.nan
    """Standard error of the mean over documents, in nats; nan: unknown."""
    includes_documents: bool = False
    """Whether the bounds hold the error over documents too."""

    @property
    def pairs(self) -> int:
        """All pairs, failed ones included."""
        return self.n + self.failed

    @property
    def known(self) -> bool:
        """Whether the interval has bounds."""
        return math.isfinite(self.low)

    @property
    def gap(self) -> float:
        """Gap of the mean."""
        return gap(self.mean)

    @property
    def gap_low(self) -> float:
        """Gap of the lower bound."""
        return gap(self.low)

    @property
    def gap_high(self) -> float:
        """Gap of the upper bound."""
        return gap(self.high)


def gap(nats: float) -> float:
    """Return the perplexity ratio minus 1 of a difference in nats."""
    return perplexity(nats) - 1


def paired_differences(
    arm: Mapping[int, float | None], baseline: Mapping[int, float | None]
) -> list[float]:
    """Return arm minus baseline for each seed that both have; nan where either run failed.

    Args:
        arm: Seed -> final loss in nats; None or a number that is not finite: the run diverged or
            failed.
        baseline: The same of the baseline.
    """
    return [_finite(arm[seed]) - _finite(baseline[seed]) for seed in arm if seed in baseline]


def paired_interval(differences: Sequence[float], k: int = 1) -> Interval:
    """Return the mean of paired differences with Student's interval at 1 - ALPHA / k.

    Args:
        differences: One for each seed, in nats; those that are not finite are counted as failed
            pairs.
        k: Comparisons in the family: all k intervals together hold their true values with chance 1
            - ALPHA.
    """
    from scipy.special import stdtrit

    values = np.asarray(differences, dtype=float)
    failed = int(np.sum(~np.isfinite(values)))
    values = values[np.isfinite(values)]
    n, confidence = len(values), 1 - ALPHA / k
    mean = float(values.mean()) if n else math.nan
    if n < 2:
        return Interval(mean, math.nan, math.nan, n, math.nan, confidence, k, failed)
    sd = float(values.std(ddof=1))
    half = float(stdtrit(n - 1, (1 + confidence) / 2)) * sd / math.sqrt(n)
    return Interval(mean, mean - half, mean + half, n, sd, confidence, k, failed)


def with_document_error(interval: Interval, document_error: float) -> Interval:
    """Return an interval over seeds with the error over documents.

    If the error over documents is at least that over seeds, the bounds are widened: both variances
    are added, and the t quantile has the degrees of freedom of the seeds. Otherwise the bounds
    stay, and the claim is about this text.

    Args:
        document_error: Standard error of the mean difference over documents, in nats
            (`document_error`).
    """
    from scipy.special import stdtrit

    interval = replace(interval, document_error=document_error)
    if not interval.known or not document_error >= interval.sd / math.sqrt(interval.n):
        return interval
    error = math.hypot(interval.sd / math.sqrt(interval.n), document_error)
    half = float(stdtrit(interval.n - 1, (1 + interval.confidence) / 2)) * error
    low, high = interval.mean - half, interval.mean + half
    return replace(interval, low=low, high=high, includes_documents=True)


def bounds_at_most(limit: float) -> Bounds:
    """Return the bounds, in nats, within which "at most +limit" holds."""
    return -math.inf, math.log1p(limit)


def bounds_within(margin: float) -> Bounds:
    """Return the bounds, in nats, within which "equal within +-margin" holds."""
    return math.log1p(-margin), math.log1p(margin)


def at_most(interval: Interval, limit: float) -> str:
    """Judge the claim "the gap is at most +limit" by the whole interval.

    Args:
        limit: A gap, e.g. 0.05.

    Returns:
        PASS, FAIL, INCONCLUSIVE, UNKNOWN (fewer than two pairs) or UNSTABLE (a pair failed).
    """
    return _judge(interval, bounds_at_most(limit), (PASS, FAIL, INCONCLUSIVE))


def equal_within(interval: Interval, margin: float) -> str:
    """Judge the claim "equal within +-margin" by the whole interval.

    Args:
        margin: A gap, e.g. 0.01.

    Returns:
        YES, NO, NOT_SHOWN, UNKNOWN (fewer than two pairs) or UNSTABLE (a pair failed).
    """
    return _judge(interval, bounds_within(margin), (YES, NO, NOT_SHOWN))


def _judge(interval: Interval, bounds: Bounds, words: tuple[str, str, str]) -> str:
    inside, outside, between = words
    low, high = bounds
    if interval.failed:
        return UNSTABLE
    if not interval.known:
        return UNKNOWN
    if low <= interval.low and interval.high <= high:
        return inside
    return outside if interval.low > high or interval.high < low else between


def is_open(interval: Interval, bounds: Bounds) -> bool:
    """Return whether a claim is undecided: the interval lies partly within its bounds."""
    return _judge(interval, bounds, (YES, NO, NOT_SHOWN)) == NOT_SHOWN


def power(
    difference: float, sd: float, n: int, bounds: Bounds, k: int = 1, document_error: float = 0.0
) -> float:
    """Return the chance that the interval of n pairs lies wholly within the bounds.

    Args:
        difference: True mean difference, in nats.
        sd: True standard deviation of a difference.
        n: Pairs, at least 2.
        bounds: In nats, from `bounds_at_most` or `bounds_within`; -inf and inf are allowed.
        k: Comparisons in the family.
        document_error: Standard error over documents, where the interval includes it.

    Source: the distribution of (mean, sd) of a normal sample, integrated over sd; Phillips 1990,
        "Power of the two one-sided tests procedure in bioequivalence",
        J. Pharmacokinetics and Biopharmaceutics 18.
    """
    from scipy.special import chdtri, ndtr, stdtrit

    if sd == document_error == 0:
        return float(bounds[0] <= difference <= bounds[1])
    # 400 equally likely values of sample sd / true sd
    spreads = np.sqrt(chdtri(n - 1, (np.arange(400) + 0.5) / 400) / (n - 1))
    error = math.hypot(sd / math.sqrt(n), document_error)
    half = stdtrit(n - 1, 1 - ALPHA / k / 2) * np.hypot(spreads * sd / math.sqrt(n), document_error)
    upper = (bounds[1] - half - difference) / error
    lower = (bounds[0] + half - difference) / error
    return float(np.clip(ndtr(upper) - ndtr(lower), 0, None).mean())


def deciding_seeds(interval: Interval, bounds: Bounds) -> tuple[int, int | None] | None:
    """Return how many seeds would decide an open claim with power 0.8.

    The true gap is taken to be the one seen, and the true standard deviation of a difference to
    lie between the 68 % limits of the one seen.

    Args:
        bounds: Of the claim, from `bounds_at_most` or `bounds_within`.

    Returns:
        (fewest, most); most is None above LARGEST_PROPOSAL. None where the claim is decided or
        unknown, and where the gap seen is so near a bound that so many would not decide it.
    """
    from scipy.special import chdtri

    if not is_open(interval, bounds):
        return None
    low, high = bounds
    if low <= interval.mean <= high:
        target = bounds
    else:
        target = (high, math.inf) if interval.mean > high else (-math.inf, low)
    df = interval.n - 1
    error = interval.document_error if interval.includes_documents else 0.0
    spreads = [interval.sd * math.sqrt(df / chdtri(df, tail)) for tail in (0.16, 0.84)]
    few, many = (_fewest_seeds(interval.mean, sd, target, interval.k, error) for sd in spreads)
    return None if few is None else (few, many)


def _fewest_seeds(gap: float, sd: float, bounds: Bounds, k: int, error: float) -> int | None:
    """Return the fewest pairs with power 0.8; None above LARGEST_PROPOSAL."""

    def suffices(n: int) -> bool:
        return power(gap, sd, n, bounds, k, error) >= POWER

    if not suffices(LARGEST_PROPOSAL):
        return None
    return bisect_left(range(LARGEST_PROPOSAL), True, lo=2, key=suffices)


def _finite(loss: float | None) -> float:
    return loss if loss is not None and math.isfinite(loss) else math.nan


def document_error(pairs: Sequence[tuple[Mapping[str, Any], Mapping[str, Any]]]) -> float:
    """Return the bootstrap standard error over documents of a loss difference, in nats per token.

    The difference is arm minus baseline, averaged over the seeds that they share.

    Args:
        pairs: For each seed `nats` and `tokens` of every document, of the arm and of the baseline.

    Returns:
        nan where a run has no documents, or not those of the others.
    """
    documents = [run for pair in pairs for run in pair]
    if not documents or not all(documents):
        return math.nan
    tokens = np.asarray(documents[0]["tokens"])
    is_same = all(np.array_equal(run["tokens"], tokens) for run in documents)
    if not is_same or len(tokens) < 2 or not tokens.sum() > 0:
        return math.nan
    nats = np.mean([np.subtract(arm["nats"], base["nats"]) for arm, base in pairs], axis=0)
    rng = np.random.default_rng(0)
    means = []
    for _ in range(RESAMPLES // RESAMPLES_AT_ONCE):  # all at once would fill the memory
        picks = rng.integers(len(nats), size=(RESAMPLES_AT_ONCE, len(nats)))
        means.append(nats[picks].sum(axis=1) / tokens[picks].sum(axis=1))
    return float(np.std(means, ddof=1))
