"""Keys, types and states in the files of a run folder."""

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

ACTIVE = ("running", "evaluating", "saving")
"""States of status.json while a process trains."""
FORMAT = 1
LARGEST = 1 << 60
"""Largest whole number of a record; a larger one is damage, and would overflow a clock."""
Whole = Annotated[int, Field(ge=-LARGEST, le=LARGEST)]
Number = float | None
"""null: not finite, or not known."""


class Record(BaseModel):
    """Keys that a file has; it may have others."""

    model_config = ConfigDict(strict=True)


class ConfigRecord(Record):
    """config.yaml, beside its format."""

    kind: str
    label: str
    seed: Whole
    experiment: dict[str, Any]
    overrides: dict[str, Any]
    code: dict[str, Any]
    versions: dict[str, Any]
    resolved: dict[str, Any]
    corpus: dict[str, Any]
    parameters: dict[str, Any]


class SummaryRecord(Record):
    """summary.json of any version."""

    steps: Whole
    best_val_loss: Number
    final_val_loss: Number


class StatusRecord(Record):
    """status.json; a queue writes fewer keys than a trainer."""

    state: str = ""
    step: Whole = 0
    max_steps: Whole = 0
    heartbeat: Number = None
    started: Number = None
    train_loss: Number = None
    steps_per_s: Number = None
    tokens_per_s: Number = None
    memory_bytes: Number = None
    eta_seconds: list[Any] | None = None
    evals: list[Any] = []
    best: dict[str, Any] | None = None
    budget: dict[str, Any] | None = None


class MetricsRow(Record):
    """A line of metrics.jsonl."""

    event: str
    step: Whole
    tokens: Whole
    loss: Number = None
    perplexity: Number = None
    learning_rate: Number = None
    grad_norm: Number = None
    tokens_per_s: Number = None
    eval_tokens: Number = None
    eval_seconds: Number = None
    seconds: Number = None
    logit_std: list[Number] | None = None


CHECKPOINTS = ("latest", "best", "latest.prev")
"""Names of checkpoints: the last, by which arms are compared; the one with the least subset loss;
the last but one."""
RESUMABLE = ("latest", "latest.prev")
"""Names of checkpoints from which training can continue, the newest first."""
EXECUTED = ("train.ipynb", "train.html")
"""Executed notebook and page of a run. Training first removes those of an earlier session, so in a
finished run they show its result."""
EXPORT_FORMS = ("safetensors", "huggingface")
"""Forms in which the weights of a run are exported."""
