"""Gaps as text: in percent, with their interval, and how many seeds would decide their claim."""

import math
from dataclasses import replace

from oelm_lib import stats

LARGEST_GAP = 10.0
"""Larger gaps (1,000 %) are shown as such: the arm has diverged, and its digits mean nothing."""


def percent(value: float, digits: int = 2) -> str:
    """Return a gap with its sign: +9.75 %."""
    return f"{_number(value, digits)} %"


def gap_text(gap: float, low: float, high: float) -> str:
    """Return a gap with its interval: +3.0 % [+2.2, +3.8]; alone where the bounds are nan."""
    if math.isnan(low):
        return percent(gap, 1)
    return f"{percent(gap, 1)} [{_number(low, 1)}, {_number(high, 1)}]"


def interval_text(interval: stats.Interval) -> str:
    """Return gap_text of an interval; a dash where no pair has a difference."""
    if not interval.n:
        return "–"
    return gap_text(interval.gap, interval.gap_low, interval.gap_high)


def seeds_text(interval: stats.Interval, bounds: stats.Bounds) -> str:
    """Return what would decide a claim, as a clause; empty where it is not open.

    Args:
        bounds: Of the claim, as in stats.deciding_seeds.
    """
    if not stats.is_open(interval, bounds):
        return ""
    seeds = stats.deciding_seeds(interval, bounds)
    over_seeds = replace(interval, document_error=math.nan)
    if seeds is None and stats.deciding_seeds(over_seeds, bounds):
        return "more documents are needed: no number of seeds would decide it"
    if seeds is None:
        return "no number of seeds would decide it: the gap seen lies on the bound"
    few, many = seeds
    return f"about {few} to {many or f'more than {stats.LARGEST_PROPOSAL}'} seeds would decide it"


def _number(gap: float, digits: int) -> str:
    """Return a gap in percent without the unit."""
    if gap > LARGEST_GAP:
        return f"over {100 * LARGEST_GAP:+,.0f}"
    return f"{100 * gap:+.{digits}f}".replace("-", "−")
