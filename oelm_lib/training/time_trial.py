"""Estimate the time of a run: a trial of some steps, and a warning before a slow run."""

import tempfile
import time
from pathlib import Path
from typing import Any, NamedTuple

import torch

from oelm_lib.data import EvalWindows
from oelm_lib.model.dropout import evaluation_mode
from oelm_lib.runs.folder import Run
from oelm_lib.runs.timing import Budget
from oelm_lib.training import checkpoint
from oelm_lib.training.device import device_name
from oelm_lib.training.evaluation import token_losses
from oelm_lib.training.progress import UNMEASURED, Progress
from oelm_lib.training.state import TrainingState
from oelm_lib.units import format_duration

WARM_STEPS = 3
"""First steps of a trial, which are slower and are not timed."""
SLOW_SECONDS = 600.0
"""A run that is projected to take longer than this on a CPU gets a warning."""
SLOW_PART = 60.0
"""Parts of a run that take longer than this are shortened in a rehearsal."""


def run_trial(run: Run, outputs: Path, steps: int = 20) -> dict[str, Any]:
    """Time some training steps, a part of an evaluation and a save; delete what was written.

    Args:
        outputs: Folder on whose disk the checkpoint is written.

    Returns:
        device, precision; seconds: (low, high) of the whole run; checkpoint_bytes.
    """
    cfg, corpus = run.config, run.corpus
    state = TrainingState(run)
    state.compile()
    windows = EvalWindows(corpus.tokens("val"), cfg.model.max_seq_len, state.device, corpus.recall)
    subset = windows.subset(cfg.train.eval_tokens)
    progress = Progress(cfg, Budget(), 0, 0, (len(subset), windows.count))
    for number in range(WARM_STEPS + steps):
        start = time.perf_counter()
        state.advance()
        if state.device.type == "cuda":
            torch.cuda.synchronize(state.device)
        if number >= WARM_STEPS:
            progress.add_step(time.perf_counter() - start)
    part = subset[: max(len(subset) // 8, 1)]
    start = time.perf_counter()
    token_losses(state.model, windows, part)
    progress.add_evaluation((time.perf_counter() - start) * len(subset) / len(part))
    start = time.perf_counter()
    with tempfile.TemporaryDirectory(dir=outputs) as folder:
        path = Path(folder) / "trial.pt"
        checkpoint.save(path, state.state_dict())
        size = path.stat().st_size
    progress.add_save(time.perf_counter() - start)
    return {
        "device": device_name(state.device),
        "precision": state.precision.name,
        "seconds": progress.seconds_left(1),
        "checkpoint_bytes": size,
    }


def slow_warning(state: TrainingState) -> str | None:
    """Return a warning where a run on a CPU takes over SLOW_SECONDS.

    It names the projected time, its largest part, and smaller values to rehearse with.
    """
    if state.device.type != "cpu":
        return None
    batch_size = state.cfg.train.batch_size
    parts = _projected_parts(state, _pass_seconds(state, 1))
    if sum(part.seconds for part in parts) > SLOW_SECONDS:
        # One window, cold, overstates the step of a small model: measure again before warning.
        # The first pass over a whole batch is cold, too: it can take 40 times as long as the next.
        rows = batch_size if parts[0].seconds / state.cfg.train.max_steps < 1 else 1
        seconds = min(_pass_seconds(state, rows) for _ in range(2))
        parts = _projected_parts(state, seconds / rows)
    seconds = sum(part.seconds for part in parts)
    if seconds < SLOW_SECONDS:
        return None
    days = f" ({seconds / 86400:.1f} days)" if seconds > 86400 else ""
    largest = max(parts, key=lambda part: part.seconds)
    smaller = " ".join(part.smaller for part in parts if part.seconds > SLOW_PART and part.smaller)
    rehearsal = f", or rehearse: overrides {smaller}" if smaller else ""
    return (
        f"on this CPU the run will take about {format_duration(seconds)}{days}, most of it for"
        f" {largest.name}; use a GPU{rehearsal}"
    )


class _Part(NamedTuple):
    """A part of a run: its projected seconds, and overrides that shorten it, or ""."""

    name: str
    seconds: float
    smaller: str


def _projected_parts(state: TrainingState, window_seconds: float) -> list[_Part]:
    """Return the steps first, then the evaluations and the scores of the whole split at the end.

    Args:
        window_seconds: Of a forward and backward pass over one window.
    """
    train, corpus = state.cfg.train, state.run.corpus
    windows = EvalWindows(corpus.tokens("val"), state.cfg.model.max_seq_len, state.device)
    subset = len(windows.subset(train.eval_tokens))
    evals = -(-train.max_steps // train.eval_interval)
    smaller = ["train.max_steps=10"] if train.max_steps > 10 else []
    if train.batch_size > 1 and 10 * train.batch_size * window_seconds > SLOW_PART:
        smaller.append("train.batch_size=1")
    is_small = corpus.name == "stories" or corpus.recall
    return [
        _Part(
            f"its {train.max_steps:,} steps of {train.batch_size} windows",
            train.max_steps * train.batch_size * window_seconds,
            " ".join(smaller),
        ),
        _Part(
            f"its evaluations of {subset} windows",
            evals * subset * UNMEASURED * window_seconds,
            "train.eval_tokens=4096" if train.eval_tokens > 4096 else "",
        ),
        _Part(
            "the scores of the whole validation split at its end",
            2 * windows.count * UNMEASURED * window_seconds,
            "" if is_small else "data.corpus=stories",
        ),
    ]


def _pass_seconds(state: TrainingState, rows: int) -> float:
    """Return the seconds of a pass over the first rows of a batch; the state is unchanged."""
    tokens, targets = state.batches(0)
    start = time.perf_counter()
    with evaluation_mode(state.model):
        state.model(tokens[:rows], targets[:rows])[1].backward()
    state.optimizer.zero_grad(set_to_none=True)
    return time.perf_counter() - start
