"""timing_stats.json: the log's fields, and the whole time budget."""

from typing import Any

import numpy as np

from oelm_lib.config import Experiment
from oelm_lib.runs.metrics import perplexity
from oelm_lib.runs.status import format_duration

WARMUP_STEPS = 100
"""First steps left out of the step statistics, as in the log (fewer where the run is shorter than twice that)."""


def timing_stats(
    cfg: Experiment,
    metrics: Any,
    budget: dict[str, float],
    wall_seconds: float,
    best_val_loss: float | None,
    epoch_steps: int,
) -> dict[str, Any]:
    """Step statistics over log intervals; nothing is taken out as an outlier, so stalls show.

    Args:
        metrics: read_metrics of the run.
        budget: Budget.to_dict().
        best_val_loss: Best loss over the whole validation split, nats.
        epoch_steps: Steps in an epoch.
    """
    train = metrics[metrics["event"] == "train"]
    evals = metrics[metrics["event"] == "eval"]
    step_tokens = cfg.train.batch_size * cfg.model.max_seq_len
    skipped = WARMUP_STEPS if cfg.train.max_steps >= 2 * WARMUP_STEPS else 0
    kept, steps = train["step"] > skipped, np.diff(train["step"], prepend=0)
    seconds = (
        (step_tokens / train["tokens_per_s"])[kept]
        .repeat(steps[kept])
        .describe(percentiles=[0.5, 0.95, 0.99])
    )
    log_type = {"orthogonal": "oelm_v2", "normal": "oelm_random"}
    frozen = cfg.model.freeze_q and cfg.model.freeze_k
    ends = np.arange(0, cfg.train.max_steps + 1, epoch_steps)
    clock = np.interp(ends, np.r_[0, train["step"]], np.r_[0.0, train["seconds"]])
    return {
        "model_type": log_type[cfg.model.qk_init] if frozen else "baseline",
        "init_method": cfg.model.qk_init if frozen else "n/a",
        "dataset": cfg.data.corpus,
        "total_wall_time": wall_seconds,
        "total_formatted": format_duration(wall_seconds),
        "num_steps_measured": int(seconds["count"]),
        "warmup_steps": skipped,
        "mean_step_time": seconds["mean"],
        "std_step_time": seconds["std"],
        "median_step_time": seconds["50%"],
        "min_step_time": seconds["min"],
        "max_step_time": seconds["max"],
        "p95_step_time": seconds["95%"],
        "p99_step_time": seconds["99%"],
        "total_validation_time": float(evals["eval_seconds"].sum()),
        "mean_validation_time": evals["eval_seconds"].mean(),
        "num_validations": len(evals),
        "epoch_times": np.diff(clock).tolist(),
        "final_perplexity": None if best_val_loss is None else perplexity(best_val_loss),
        "best_val_loss": best_val_loss,
        "budget": budget,
    }
