"""What the wall time of a run goes to, and timing_stats.json with the fields of the log."""

import contextlib
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from oelm_lib.arms import arm_name
from oelm_lib.config import Experiment
from oelm_lib.units import format_duration, perplexity

if TYPE_CHECKING:
    import pandas as pd

PHASES = ("setup", "compile", "data", "step", "evaluation", "saving", "final_evaluation")
WARMUP_STEPS = 100
"""First steps left out of the step statistics, as in the log; a run below twice that keeps all."""
LOG_NAMES = {"OELM-Freeze": "oelm_v2", "OELM-Random": "oelm_random"}
"""Arm -> `model_type` in the log; every other arm has its own name."""


class Budget:
    """Time budget of a run: seconds by phase, continued when the run resumes."""

    def __init__(self):
        self.spent = dict.fromkeys(PHASES, 0.0)
        self._start = time.perf_counter()

    def resume(self, spent: dict[str, float], elapsed: float) -> None:
        """Add what earlier sessions spent: seconds by phase, and wall seconds."""
        for phase, seconds in spent.items():
            self.spent[phase] += seconds
        self._start -= elapsed

    @contextlib.contextmanager
    def __call__(self, phase: str) -> Iterator[None]:
        """Add the seconds of the block to `phase`."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self.spent[phase] += time.perf_counter() - start

    @property
    def seconds(self) -> float:
        """Wall seconds of all sessions so far."""
        return time.perf_counter() - self._start

    def to_dict(self) -> dict[str, float]:
        """Return the seconds by phase; `other` closes the sum to the wall time."""
        return self.spent | {"other": max(self.seconds - sum(self.spent.values()), 0.0)}


def timing_stats(
    cfg: Experiment,
    metrics: "pd.DataFrame",
    budget: dict[str, float],
    wall_seconds: float,
    best_val_loss: float | None,
    epoch_steps: int,
) -> dict[str, Any]:
    """Return the statistics of the step time, in seconds, and the time budget.

    The statistics are over log intervals, weighted by their steps. No outlier is removed, so a
    stall shows.

    Args:
        cfg: The run's config.
        metrics: Frame of read_metrics.
        budget: Budget.to_dict().
        wall_seconds: Wall time of the run without its page.
        best_val_loss: Best loss over the whole validation split, in nats; None where unknown.
        epoch_steps: Steps in an epoch.
    """
    train = metrics[metrics["event"] == "train"]
    evals = metrics[metrics["event"] == "eval"]
    skipped = WARMUP_STEPS if cfg.train.max_steps >= 2 * WARMUP_STEPS else 0
    step_seconds = _step_seconds(cfg, train, skipped).describe(percentiles=[0.5, 0.95, 0.99])
    arm = arm_name(cfg)
    return {
        "model_type": LOG_NAMES.get(arm, arm),
        "init_method": cfg.model.qk_init if cfg.model.is_frozen else "n/a",
        "dataset": cfg.data.corpus,
        "total_wall_time": wall_seconds,
        "total_formatted": format_duration(wall_seconds),
        "num_steps_measured": int(step_seconds["count"]),
        "warmup_steps": skipped,
        "mean_step_time": step_seconds["mean"],
        "std_step_time": step_seconds["std"],
        "median_step_time": step_seconds["50%"],
        "min_step_time": step_seconds["min"],
        "max_step_time": step_seconds["max"],
        "p95_step_time": step_seconds["95%"],
        "p99_step_time": step_seconds["99%"],
        "total_validation_time": float(evals["eval_seconds"].sum()),
        "mean_validation_time": evals["eval_seconds"].mean(),
        "num_validations": len(evals),
        "epoch_times": _epoch_seconds(cfg, train, epoch_steps),
        "final_perplexity": None if best_val_loss is None else perplexity(best_val_loss),
        "best_val_loss": best_val_loss,
        "budget": budget,
    }


def _step_seconds(cfg: Experiment, train: "pd.DataFrame", skipped: int) -> "pd.Series":
    """Return the seconds of each step after the first `skipped`: the mean of its log interval."""
    steps = np.diff(train["step"], prepend=0)
    kept = train["step"] > skipped
    return (cfg.step_tokens / train["tokens_per_s"])[kept].repeat(steps[kept])


def _epoch_seconds(cfg: Experiment, train: "pd.DataFrame", epoch_steps: int) -> list[float]:
    """Return the wall seconds of each whole epoch, interpolated between log points."""
    ends = np.arange(0, cfg.train.max_steps + 1, epoch_steps)
    clock = np.interp(ends, np.r_[0, train["step"]], np.r_[0.0, train["seconds"]])
    return np.diff(clock).tolist()
