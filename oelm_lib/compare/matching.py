"""Comparisons beside the verdict: at equal step, tokens or seconds, and from arm to arm."""

import math

import numpy as np
import pandas as pd

from oelm_lib import stats
from oelm_lib.compare.confounds import differences
from oelm_lib.compare.pairs import Pair, families, pairs
from oelm_lib.errors import UserError
from oelm_lib.units import perplexity

AXES = ("step", "tokens", "seconds")
QUARTERS = (0.25, 0.5, 0.75, 1.0)


def matched(
    runs: pd.DataFrame,
    metrics: pd.DataFrame,
    by: str = "step",
    at: list[float] | None = None,
    baseline: str | None = None,
) -> pd.DataFrame:
    """Compare arms at equal step, tokens or seconds, between evaluations and never beyond them.

    Evaluations during training score a fixed subset, so these losses are not those of `results`.
    The intervals are 95 % each, not adjusted for their number.

    Args:
        runs, baseline: Arguments of judge.
        metrics: Frame of load_metrics.
        by: step, tokens or seconds (of the run's own clock).
        at: Where to compare; default the four quarters of what all runs of the two arms reached.

    Raises:
        UserError: `by` is another word.
    """
    if by not in AXES:
        raise UserError(f"by = {by!r} is not an axis; use step, tokens or seconds")
    evals = metrics[(metrics["event"] == "eval") & metrics["loss"].notna() & metrics[by].gt(0)]
    curves = {
        run: rows.sort_values(by)[[by, "loss"]].to_numpy(float)
        for run, rows in evals.groupby("run")
    }
    rows = []
    for pair in pairs(runs, baseline):
        paired = [
            (curves[arm], curves[base])
            for arm, base in pair.run_names().items()
            if arm in curves and base in curves
        ]
        reach = min((curve[-1, 0] for both in paired for curve in both), default=math.nan)
        points = at or ([reach * quarter for quarter in QUARTERS] if paired else [math.nan])
        rows += [_compare_at(pair, paired, by, point) for point in points]
    return pd.DataFrame(rows)


def _compare_at(
    pair: Pair, paired: list[tuple[np.ndarray, np.ndarray]], by: str, point: float
) -> dict[str, object]:
    """Return the row of a pair at one point of the axis."""
    losses = [(_loss_at(arm, point), _loss_at(base, point)) for arm, base in paired]
    reached = [both for both in losses if not any(map(math.isnan, both))]
    interval = stats.paired_interval([arm - base for arm, base in reached])
    means = np.mean(reached, axis=0) if reached else (math.nan, math.nan)
    first = pair.arm.iloc[0]
    return {
        "corpus": first["corpus"],
        "arm": first["arm"],
        "id": pair.arm_id,
        "source": first["source"],
        "baseline": pair.base_id,
        by: point,
        "perplexity": perplexity(means[0]),
        "baseline_perplexity": perplexity(means[1]),
        "n": interval.n,
        "nats": interval.mean,
        "gap": interval.gap,
        "unadjusted_low": interval.gap_low,
        "unadjusted_high": interval.gap_high,
    }


def _loss_at(curve: np.ndarray, point: float) -> float:
    """Interpolate a loss in the logarithm of the axis, over which curves are nearly straight."""
    if not point > 0:
        return math.nan
    x, loss = np.log(curve[:, 0]), curve[:, 1]
    return float(np.interp(np.log(point), x, loss, math.nan, math.nan))


def ablation(runs: pd.DataFrame, baseline: str | None = None) -> pd.DataFrame:
    """Order the arms of each baseline by loss, and compare each with the one before it.

    The intervals are 95 % each, not adjusted for their number: exploratory.

    Args:
        runs, baseline: Arguments of judge.

    Returns:
        One row per step. `gap` has `from` as its base, `gap_back` has `to`; `total_nats` counts
        from the baseline; `differs` lists the keys that set the two apart (several: mixed causes).
    """
    rows = []
    for family in families(runs, baseline):
        before = family[0].base
        with_seeds = [pair for pair in family if len(pair.shared()[0])]
        for pair in sorted(with_seeds, key=_total_nats):  # shared seeds only: losses differ by seed
            rows.append(_step(before, pair))
            before = pair.arm
    return pd.DataFrame(rows)


def _total_nats(pair: Pair) -> float:
    """Return the mean difference of an arm to its baseline."""
    return stats.paired_interval(pair.differences()).mean


def _step(before: pd.DataFrame, pair: Pair) -> dict[str, object]:
    """Return the row of the step from the runs `before` to the arm of a pair."""
    step = Pair(pair.arm, before)
    interval = stats.paired_interval(step.differences())
    first, second = before.iloc[0], pair.arm.iloc[0]
    science = second["experiment"].science
    keys = [key for key in differences(first, second)["key"] if key in science]
    return {
        "corpus": second["corpus"],
        "from": first["arm"],
        "to": second["arm"],
        "from_id": step.base_id,
        "to_id": step.arm_id,
        "n": interval.n,
        "nats": interval.mean,
        "gap": interval.gap,
        "unadjusted_low": interval.gap_low,
        "unadjusted_high": interval.gap_high,
        "gap_back": stats.gap(-interval.mean),
        "total_nats": _total_nats(pair),
        "differs": ", ".join(keys),
        "source": second["source"],
    }
