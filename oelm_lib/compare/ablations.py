"""What each arm adds to the one before it."""

import pandas as pd

from oelm_lib import stats
from oelm_lib.compare.confounds import differences
from oelm_lib.compare.pairs import METRIC, Pair, comparable, families


def ablation(runs: pd.DataFrame, baseline: str | None = None) -> pd.DataFrame:
    """Order the arms of each baseline by loss, and compare each with the one before it.

    The intervals are 95 % each, not adjusted for their number: exploratory.

    Args:
        runs, baseline: Arguments of judge.

    Returns:
        One row a step. `gap` has `from` as its base, `gap_back` has `to`; `total_nats` counts from
        the baseline; `differs` lists the keys that set the two apart (several: mixed causes).
    """
    rows = []
    for family in families(runs, baseline):
        before = family[0].base
        judged = [pair for pair in family if len(pair.shared()[0])]
        for pair in sorted(judged, key=lambda pair: comparable(pair.arm)[METRIC].mean()):
            rows.append(_step(before, pair))
            before = pair.arm
    return pd.DataFrame(rows)


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
        "from_id": step.base_name,
        "to_id": step.arm_name,
        "n": interval.n,
        "nats": interval.mean,
        "gap": interval.gap,
        "unadjusted_low": interval.gap_low,
        "unadjusted_high": interval.gap_high,
        "gap_back": stats.gap(-interval.mean),
        "total_nats": stats.paired_interval(pair.differences()).mean,
        "differs": ", ".join(keys),
        "source": second["source"],
    }
