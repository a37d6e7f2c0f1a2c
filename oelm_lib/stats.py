"""Paired intervals, verdicts and their error rates. Losses in nats, gaps as perplexity ratios minus 1."""

import itertools
import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from oelm_lib.runs.metrics import perplexity

ALPHA = 0.05
CRITERION = 1.05
MARGIN = 0.01
PASS, FAIL, INCONCLUSIVE, UNKNOWN = "PASS", "FAIL", "INCONCLUSIVE", "UNKNOWN INTERVAL"


class Interval(NamedTuple):
    """Mean difference in nats and its t-interval; nan bounds where fewer than two pairs leave it unknown."""

    mean: float
    low: float
    high: float
    n: int
    confidence: float

    @property
    def known(self) -> bool:
        """Whether there is an interval at all."""
        return math.isfinite(self.low)


def gap(nats: float) -> float:
    """Perplexity ratio minus 1 of a difference in nats."""
    return perplexity(nats) - 1


def paired_interval(differences: Sequence[float], confidence: float = 1 - ALPHA) -> Interval:
    """Return the mean of paired differences with Student's interval."""
    from scipy.special import stdtrit

    values = np.asarray(differences, dtype=float)
    n = len(values)
    mean = float(values.mean()) if n else math.nan
    if n < 2:
        return Interval(mean, math.nan, math.nan, n, confidence)
    half = stdtrit(n - 1, (1 + confidence) / 2) * values.std(ddof=1) / math.sqrt(n)
    return Interval(mean, float(mean - half), float(mean + half), n, confidence)


def seeds_for(differences: Sequence[float], half_width: float) -> float:
    """Pairs that a 95 % interval of such differences needs to be no wider to each side; nan below two pairs."""
    from scipy.special import stdtrit

    if len(differences) < 2:
        return math.nan
    spread = np.std(differences, ddof=1)
    return next(
        n
        for n in itertools.count(2)
        if stdtrit(n - 1, 1 - ALPHA / 2) * spread <= half_width * math.sqrt(n)
    )


def p_value(differences: Sequence[float], mean: float = 0.0) -> float:
    """Two-sided p of the paired t-test against `mean`; nan with fewer than two pairs."""
    from scipy.special import stdtr

    values = np.asarray(differences, dtype=float)
    if len(values) < 2:
        return math.nan
    error = values.std(ddof=1) / math.sqrt(len(values))
    if error == 0:
        return float(values.mean() == mean)
    return float(2 * stdtr(len(values) - 1, -abs(values.mean() - mean) / error))


def equivalence_p(differences: Sequence[float], margin: float = MARGIN) -> float:
    """P-value whose interval first fits within the margin; 1 where the mean lies outside, nan below two pairs."""
    bounds = (math.log1p(-margin), math.log1p(margin))
    if len(differences) >= 2 and not bounds[0] < np.mean(differences) < bounds[1]:
        return 1.0
    return max(p_value(differences, bound) for bound in bounds)


def holm(p_values: Sequence[float], alpha: float = ALPHA) -> list[float]:
    """Confidence each hypothesis' interval needs so that all verdicts together err at most `alpha`.

    Holm's step-down: the smallest of k p-values is tested at alpha / k, the next at alpha / (k - 1), and so on to the
    first that is not rejected; the rest keep its level. An interval at the returned confidence excludes the tested
    value exactly where Holm rejects it. A nan (one seed) claims nothing, so it takes no share and keeps 1 - alpha.
    """
    confidences = [1 - alpha] * len(p_values)
    order = sorted(
        (i for i, p in enumerate(p_values) if not math.isnan(p)), key=lambda i: p_values[i]
    )
    level, rejecting = alpha, True
    for rank, i in enumerate(order):
        if rejecting:
            level = alpha / (len(order) - rank)
            rejecting = p_values[i] <= level
        confidences[i] = 1 - level
    return confidences


def verdict(interval: Interval, criterion: float = CRITERION) -> str:
    """Judge perplexity <= criterion x baseline by the whole interval."""
    if not interval.known:
        return UNKNOWN
    bound = math.log(criterion)
    return PASS if interval.high <= bound else FAIL if interval.low > bound else INCONCLUSIVE


def equivalence(interval: Interval, margin: float = MARGIN) -> bool:
    """Whether the whole interval lies within +-margin of the baseline's perplexity."""
    return (
        interval.known
        and math.log1p(-margin) <= interval.low
        and interval.high <= math.log1p(margin)
    )


def bootstrap_documents(
    nats: np.ndarray, tokens: np.ndarray, resamples: int = 1000, seed: int = 0
) -> float:
    """Standard error, in nats per token, of a loss difference over a resampled set of documents.

    Args:
        nats: Per document, arm minus baseline (pairing by document), averaged over the seeds they share.
        tokens: Tokens of the same documents.
    """
    if len(nats) < 2:
        return math.nan
    rng = np.random.default_rng(seed)
    picks = (rng.integers(len(nats), size=len(nats)) for _ in range(resamples))
    return float(np.std([nats[pick].sum() / tokens[pick].sum() for pick in picks], ddof=1))
