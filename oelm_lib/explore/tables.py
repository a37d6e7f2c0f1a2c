"""Tables of explore.ipynb: a row per measure or token, a column per arm with its seeds."""

from collections.abc import Iterable, Sequence

import pandas as pd

from oelm_lib.explore import probes
from oelm_lib.explore.arms import run_label, runs_by_arm, runs_by_name
from oelm_lib.explore.probes import PROBES
from oelm_lib.training.trained import Trained

SIGNIFICANT = 3
"""Digits of a probe: the seeds of one arm differ in the third."""
NEXT_TOKENS = 8
"""Likeliest next tokens in a table."""
TEXT_TOKENS = 60
"""Tokens of a text that an arm writes."""


def summary(runs: Sequence[Trained]) -> pd.DataFrame:
    """Return the probe table with an arm in each column; seeds as mean and range."""
    table = probes.probe_values(runs).set_index("run")
    parts = {
        arm: table.loc[[run_label(run) for run in members]]
        for arm, members in runs_by_arm(runs).items()
    }
    steps = {name: _listed_steps(part["step"]) for name, part in parts.items()}
    rows = [
        {
            "measure": probe.title,
            **{name: mean_and_range(part[key]) for name, part in parts.items()},
        }
        for key, probe in PROBES.items()
        if key in table
    ]
    return pd.DataFrame([{"measure": "step of the checkpoint", **steps}, *rows])


def slices(runs: Sequence[Trained]) -> pd.DataFrame:
    """Return where the gap to the first arm lies, one row per slice.

    Columns: the loss of the first arm, and of each other arm its gap and the share of it. Losses
    are means over the seeds of an arm.
    """
    table = probes.loss_by_slice(runs)
    reference = table["arm"].iloc[0]
    rows = []
    for words, part in table.groupby("tokens_that", sort=False):
        row = {"tokens that": words, "share of tokens": f"{part['token_share'].iloc[0]:.0%}"}
        for line in part.itertuples():
            if line.arm == reference:
                row[f"{line.arm}: loss"] = f"{line.loss:.3f}"
            else:
                row[f"{line.arm}: gap in nats"] = f"{line.gap_nats:+.3f}"
                row[f"{line.arm}: share of its gap"] = f"{line.gap_share:.0%}"
        rows.append(row)
    return pd.DataFrame(rows)


def next_tokens(runs: Sequence[Trained], prompt: str) -> pd.DataFrame:
    """Return the likeliest next tokens of each run, side by side."""
    columns = {}
    for name, run in runs_by_name(runs).items():
        table = probes.likeliest_tokens(run, prompt, NEXT_TOKENS)
        columns[name] = [f"{word!r} {share:.1%}" for word, share in table.values]
    return pd.DataFrame({"rank": range(1, NEXT_TOKENS + 1)} | columns)


def texts(runs: Sequence[Trained], prompt: str, seed: int = 0) -> pd.DataFrame:
    """Return how each run continues the prompt, drawn with one random seed."""
    rows = [
        {"arm": name, "text": prompt + run.continued(prompt, TEXT_TOKENS, seed=seed)[0]}
        for name, run in runs_by_name(runs).items()
    ]
    return pd.DataFrame(rows)


def _listed_steps(steps: pd.Series) -> str:
    """Return the step of an arm's checkpoints, or the first and the last where they differ."""
    first, last = steps.min(), steps.max()
    return f"{first:,}" if first == last else f"{first:,} to {last:,}"


def mean_and_range(values: Iterable[float]) -> str:
    """Return the mean, and the range of several values, in SIGNIFICANT digits."""
    numbers = list(values)
    mean = number(sum(numbers) / len(numbers))
    if len(numbers) == 1:
        return mean
    return f"{mean} ({number(min(numbers))} to {number(max(numbers))})"


def number(value: float) -> str:
    """Return a number with SIGNIFICANT digits, at most three of them decimals."""
    if abs(value) < 0.0005:
        return "0"
    rounded = float(f"{value:.{SIGNIFICANT}g}")
    whole = len(str(int(abs(rounded)))) if abs(rounded) >= 1 else 0
    return f"{rounded:,.{min(3, max(0, SIGNIFICANT - whole))}f}"
