"""timing_stats.json: the fields of the log, and the time budget."""

from typing import TYPE_CHECKING, Any

import numpy as np

from oelm_lib.arms import arm_name
from oelm_lib.config import Experiment
from oelm_lib.units import format_duration, perplexity

if TYPE_CHECKING:
    import pandas as pd

WARMUP_STEPS = 100
"""First steps left out of the step statistics, as in the log; a run below twice that keeps all."""
LOG_NAMES = {"OELM-Freeze": "oelm_v2", "OELM-Random": "oelm_random"}
"""Arm -> `model_type` in the log; every other arm has its own name."""


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
