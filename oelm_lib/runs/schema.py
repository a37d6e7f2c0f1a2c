"""Keys, types and states in the files of a run folder."""

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
METRIC_COLUMNS = {
    "event": "string",
    "step": "int64",
    "tokens": "int64",
    "loss": "float64",
    "perplexity": "float64",
    "learning_rate": "float64",
    "grad_norm": "float64",
    "tokens_per_s": "float64",
    "eval_tokens": "float64",
    "eval_seconds": "float64",
    "seconds": "float64",
}
"""Columns of read_metrics, whatever the file holds."""
CHECKPOINTS = ("latest", "best", "latest.prev")
"""Names of checkpoints: the last, by which arms are compared; the one with the least subset loss;
the last but one."""
