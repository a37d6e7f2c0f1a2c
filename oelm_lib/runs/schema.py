"""Keys, types and states in the files of a run folder."""

from pydantic import BaseModel, ConfigDict

from oelm_lib.config import Step

ACTIVE = ("running", "evaluating", "saving")
"""States of status.json while a process trains."""
FORMAT = 1
NUMBER = (int, float, type(None))
CONFIG_KEYS = {
    "kind": str,
    "label": str,
    "seed": int,
    "experiment": dict,
    "overrides": dict,
    "code": dict,
    "versions": dict,
    "resolved": dict,
    "corpus": dict,
    "parameters": dict,
}
"""Keys of config.yaml beside its format."""
SUMMARY_KEYS = {
    "steps": int,
    "best_val_loss": NUMBER,
    "final_val_loss": NUMBER,
}
"""Keys of every summary.json; a loss that is not finite is null."""
STATUS_KEYS = {
    "state": str,
    "step": int,
    "max_steps": int,
    "heartbeat": NUMBER,
    "started": NUMBER,
    "train_loss": NUMBER,
    "steps_per_s": NUMBER,
    "tokens_per_s": NUMBER,
    "memory_bytes": NUMBER,
    "eta_seconds": (list, type(None)),
    "evals": list,
    "best": (dict, type(None)),
    "budget": (dict, type(None)),
}
"""Types of the keys that status.json may have."""


class MetricsRow(BaseModel):
    """A line of metrics.jsonl; a number that is not finite is null. Other keys are left out."""

    model_config = ConfigDict(strict=True)

    event: str
    step: Step
    tokens: Step
    loss: float | None = None
    perplexity: float | None = None
    learning_rate: float | None = None
    grad_norm: float | None = None
    tokens_per_s: float | None = None
    eval_tokens: float | None = None
    eval_seconds: float | None = None
    seconds: float | None = None
    logit_std: list[float | None] | None = None


CHECKPOINTS = ("latest", "best", "latest.prev")
"""Names of checkpoints: the last, by which arms are compared; the one with the least subset loss;
the last but one."""
