"""Paired intervals, verdicts and power: one procedure for the comparison and for studies.

A comparison is a set of differences of a loss in nats per token, one for each shared seed. Its
interval is Student's t at 1 - ALPHA / k for the k comparisons of its family (Bonferroni); its
verdict is read off the interval. A gap is a perplexity ratio minus 1: exp(difference) - 1.
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
    k: int
    """Comparisons in the family that this interval belongs to."""
    failed: int
    """Pairs of which a run diverged or failed; any makes the verdict UNSTABLE."""
    document_error: float = math.nan
    """Standard error of the mean over documents, in nats; nan: unknown."""
    includes_documents: bool = False
    """Whether the bounds hold the error over documents too."""

    @property
    def confidence(self) -> float:
        """Chance that this interval holds the true difference."""
        return 1 - ALPHA / self.k

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
        arm: Seed -> final loss in nats; None or not finite: the run diverged or failed.
        baseline: The same of the baseline.
    """
    return [_finite(arm[seed]) - _finite(baseline[seed]) for seed in arm if seed in baseline]


def paired_interval(differences: Sequence[float], k: int = 1) -> Interval:
    """Return the mean of paired differences with Student's interval at 1 - ALPHA / k.

    Args:
        differences: One for each seed, in nats; those that are not finite are counted as failed
            pairs.
        k: Comparisons in the family, whose intervals hold together with chance 1 - ALPHA.
    """
    values = np.asarray(differences, dtype=float)
    failed = int(np.sum(~np.isfinite(values)))
    values = values[np.isfinite(values)]
    n = len(values)
    mean = float(values.mean()) if n else math.nan
    sd = float(values.std(ddof=1)) if n > 1 else math.nan
    half = _t_quantile(n, k) * sd / math.sqrt(n) if n > 1 else math.nan
    return Interval(mean, mean - half, mean + half, n=n, sd=sd, k=k, failed=failed)


def _t_quantile(n: int, k: int) -> float:
    """Return Student's quantile for the interval of n differences in a family of k comparisons."""
    from scipy.special import stdtrit

    return float(stdtrit(n - 1, 1 - ALPHA / k / 2))


def with_document_error(interval: Interval, document_error: float) -> Interval:
    """Return an interval over seeds with the error over documents.

    If the error over documents is at least that over seeds, the bounds are widened: both variances
    are added, and the t quantile has the degrees of freedom of the seeds. Otherwise the bounds
    stay, and the claim is about this text.

    Args:
        document_error: Standard error of the mean difference over documents, in nats
            (`document_error`).
    """
    interval = replace(interval, document_error=document_error)
    if not interval.known or not document_error >= interval.sd / math.sqrt(interval.n):
        return interval
    error = math.hypot(interval.sd / math.sqrt(interval.n), document_error)
    half = _t_quantile(interval.n, interval.k) * error
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
    from scipy.special import chdtri, ndtr

    if sd == document_error == 0:
        return float(bounds[0] <= difference <= bounds[1])
    # 400 equally likely values of sample sd / true sd
    spreads = np.sqrt(chdtri(n - 1, (np.arange(400) + 0.5) / 400) / (n - 1))
    error = math.hypot(sd / math.sqrt(n), document_error)
    half = _t_quantile(n, k) * np.hypot(spreads * sd / math.sqrt(n), document_error)
    upper = (bounds[1] - half - difference) / error
    lower = (bounds[0] + half - difference) / error
    return float(np.clip(ndtr(upper) - ndtr(lower), 0, None).mean())


def deciding_seeds(interval: Interval, bounds: Bounds) -> tuple[int, int | None] | None:
    """Return how many seeds would decide an open claim with power 0.8.

    The true gap is taken to be the one seen, and the true standard deviation of a difference to
    lie between the 68 % limits of the one seen. The error over documents always counts: with more
    seeds it becomes the larger one.

    Args:
        bounds: Of the claim, from `bounds_at_most` or `bounds_within`.

    Returns:
        (fewest, most); most is None above LARGEST_PROPOSAL. None where the claim is decided or
        unknown, or where that many seeds would not decide it.
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
    error = 0.0 if math.isnan(interval.document_error) else interval.document_error
    spreads = [interval.sd * math.sqrt(df / chdtri(df, tail)) for tail in (0.16, 0.84)]
    few, many = (_fewest_seeds(interval.mean, sd, target, interval.k, error) for sd in spreads)
    return None if few is None else (few, many)


def _fewest_seeds(mean: float, sd: float, bounds: Bounds, k: int, error: float) -> int | None:
    """Return the fewest pairs with power 0.8; None above LARGEST_PROPOSAL."""

    def suffices(n: int) -> bool:
        return power(mean, sd, n, bounds, k, error) >= POWER

    if not suffices(LARGEST_PROPOSAL):
        return None
    return bisect_left(range(LARGEST_PROPOSAL), True, lo=2, key=suffices)


def _finite(loss: float | None) -> float:
    return loss if loss is not None and math.isfinite(loss) else math.nan


def document_error(pairs: Sequence[tuple[Mapping[str, Any], Mapping[str, Any]]]) -> float:
    """Return the standard error over documents of a loss difference, in nats per token.

    The difference is arm minus baseline, averaged over the seeds that they share: a ratio of sums
    over documents, whose standard error is that of its linear approximation.

    Args:
        pairs: For each seed `nats` and `tokens` of every document, of the arm and of the baseline.

    Returns:
        nan where a run has no documents, or not those of the others.

    Source: ratio estimates in Cochran 1977, "Sampling Techniques", 3rd edition, chapter 6.
    """
    documents = [run for pair in pairs for run in pair]
    if not documents or not all(documents):
        return math.nan
    tokens = np.asarray(documents[0]["tokens"])
    are_same = all(np.array_equal(run["tokens"], tokens) for run in documents)
    if not are_same or len(tokens) < 2 or not tokens.sum() > 0:
        return math.nan
    nats = np.mean([np.subtract(arm["nats"], base["nats"]) for arm, base in pairs], axis=0)
    residuals = nats - nats.sum() / tokens.sum() * tokens
    return math.sqrt(len(nats) * np.var(residuals, ddof=1)) / float(tokens.sum())
