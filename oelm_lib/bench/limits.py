"""Ratios between training steps that have a limit, and whether a measurement keeps it."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from oelm_lib.bench.cpu import SIZES, time_beside_scripts
from oelm_lib.bench.steps import OTHERS, random_batch, workbook_step
from oelm_lib.bench.timing import prepare, ratio
from oelm_lib.config import load_config
from oelm_lib.files import write_json

STEP_CHANGES = {
    "learned": {},
    "t5": {"model.position": "t5"},
    "alibi": {"model.position": "alibi"},
    "dropout": {"model.dropout": 0.1},
}
"""Step -> changes to the baseline at dropout 0."""
NOISE = 2.0
"""Standard errors by which a measured ratio may miss its limit and not fail."""
MET, WITHIN_ERROR, MISSED = "met", f"missed within {NOISE:g} standard errors", "missed"
"""Verdicts on a limit; MISSED alone fails."""


@dataclass(frozen=True)
class Limit:
    """Bound on the seconds of a step over those of the baseline with learned positions."""

    what: str
    step: str
    bound: float
    at_most: bool


AT_MOST = (
    Limit("T5 over learned positions", "t5", 1.15, True),
    Limit("ALiBi over learned positions", "alibi", 1.15, True),
    Limit("dropout 0.1 over dropout 0", "dropout", 1.25, True),
)
AT_LEAST = {
    "hf_gpt2_script": ("HF GPT-2, as a script", {"medium": 1.39, "study": 1.22}),
    "naive_script": ("naive attention, as a script", {"medium": 1.31, "study": 1.10}),
    "hf_gpt2": ("HF GPT-2, memory kept", {"medium": 1.01, "study": 1.14}),
    "naive": ("naive attention, memory kept", {"medium": 0.99, "study": 1.08}),
}
"""Step -> its name, and the ratio of each size that docs/speed.md states for dropout 0."""


def limits(size: str) -> list[Limit]:
    """Return the limits of a size; those on positions and dropout are stated for Medium-512."""
    others = [
        Limit(f"{name}, over ours", step, bounds[size], False)
        for step, (name, bounds) in AT_LEAST.items()
    ]
    return [*AT_MOST, *others] if size == "medium" else others


def bench_limits(size: str, rounds: int, out: Path, threads: int | None = None) -> dict[str, Any]:
    """Time the steps that have a limit, at dropout 0.

    Args:
        size: Key of oelm_lib.bench.cpu.SIZES.
        rounds: Timings of every step, at least FEWEST_ROUNDS.
        out: The .json to write.
        threads: torch threads; default torch's choice.

    Returns:
        `size`, `threads`, `torch`, `load_average`, `seconds` (step -> one a round).

    Raises:
        UserError: Too few rounds, or `transformers` is not installed.
    """
    prepare(rounds, threads)
    baseline, _, changes = SIZES[size]
    changes = changes | {"model.dropout": 0.0, "train.precision": "fp32"}
    cfg = load_config(baseline, changes)
    batch = random_batch(cfg)
    steps = {
        name: workbook_step(load_config(baseline, changes | more), batch)
        for name, more in STEP_CHANGES.items()
    }
    steps |= {kind: make(cfg, batch) for kind, make in OTHERS.items()}
    result = {
        "size": size,
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "load_average": os.getloadavg()[1],
        "seconds": time_beside_scripts(steps, cfg, rounds),
    }
    out.parent.mkdir(parents=True, exist_ok=True)
    write_json(out, result, checksum=True)
    return result


def limits_table(result: dict[str, Any]) -> pd.DataFrame:
    """Tabulate each limit with the measured ratio, its standard error and the verdict."""
    rows = []
    for limit in limits(result["size"]):
        measured = ratio(result["seconds"][limit.step], result["seconds"]["learned"])
        value, error = measured["ratio"], measured["standard_error"]
        excess = value - limit.bound if limit.at_most else limit.bound - value
        rows.append(
            {
                "what": limit.what,
                "limit": f"at {'most' if limit.at_most else 'least'} {limit.bound:.2f}",
                "ratio": f"{value:.3f}",
                "standard error": f"{error:.3f}",
                "verdict": _verdict(excess, error),
            }
        )
    return pd.DataFrame(rows)


def _verdict(excess: float, error: float) -> str:
    """Return the verdict on a ratio that misses its limit by `excess` (negative: it is met)."""
    if excess <= 0:
        return MET
    return WITHIN_ERROR if excess <= NOISE * error else MISSED
