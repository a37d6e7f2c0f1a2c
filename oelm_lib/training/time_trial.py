"""The time of a run before it is made: a trial of some steps, and a warning of a slow one."""

import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from oelm_lib.data import EvalWindows
from oelm_lib.data.preparation import REHEARSAL
from oelm_lib.runs.folder import Run
from oelm_lib.runs.timing import Budget
from oelm_lib.training import checkpoint
from oelm_lib.training.device import device_name
from oelm_lib.training.evaluation import token_losses
from oelm_lib.training.progress import Progress
from oelm_lib.training.state import TrainingState
from oelm_lib.units import format_duration

WARM_STEPS = 3
"""First steps of a trial, which are slower and are not timed."""
SLOW_SECONDS = 600.0
"""A run that is projected to take longer than this on a CPU gets a warning."""


def run_trial(run: Run, outputs: Path, steps: int = 20) -> dict[str, Any]:
    """Time some training steps, a part of an evaluation and a save; delete what was written.

    Args:
        outputs: Folder on whose disk the checkpoint is written.

    Returns:
        device, precision; seconds: (low, high) of the whole run; checkpoint_bytes.
    """
    state = TrainingState(run)
    state.compile()
    windows, subset, progress = _unmeasured(state)
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
    """Return a warning where a run on a CPU takes over SLOW_SECONDS, with a way to rehearse it."""
    if state.device.type != "cpu":
        return None
    batch_size, recall = state.cfg.train.batch_size, state.run.corpus.recall
    step_seconds = batch_size * _pass_seconds(state, 1)
    if _run_seconds(state, step_seconds) > SLOW_SECONDS:
        # One window, cold, overstates the step of a small model: measure again before warning.
        windows = batch_size if step_seconds < 1 else 1
        step_seconds = batch_size * _pass_seconds(state, windows) / windows
    seconds = _run_seconds(state, step_seconds)
    if seconds < SLOW_SECONDS:
        return None
    days = f" ({seconds / 86400:.1f} days)" if seconds > 86400 else ""
    changes = REHEARSAL.removeprefix("data.corpus=stories ") if recall else REHEARSAL
    return (
        f"on this CPU the run will take about {format_duration(seconds)}{days}; use a GPU, or"
        f' rehearse: --set "{changes}"'
    )


def _run_seconds(state: TrainingState, step_seconds: float) -> float:
    """Return the seconds of a run, its evaluations included, from those of a step."""
    _, _, progress = _unmeasured(state)
    progress.add_step(step_seconds)
    return sum(progress.seconds_left(1)) / 2


def _unmeasured(state: TrainingState) -> tuple[EvalWindows, np.ndarray, Progress]:
    """Return all validation windows, the numbers of those of an evaluation, and a forecast."""
    cfg, corpus = state.cfg, state.run.corpus
    windows = EvalWindows(corpus.tokens("val"), cfg.model.max_seq_len, state.device, corpus.recall)
    subset = windows.subset(cfg.train.eval_tokens)
    return windows, subset, Progress(cfg, Budget(), 0, 0, (len(subset), windows.count))


def _pass_seconds(state: TrainingState, windows: int) -> float:
    """Seconds of a forward and backward pass over the first windows; leaves no trace."""
    tokens, targets = state.batches(0)
    start = time.perf_counter()
    state.model.eval()  # no dropout: its generator must not move
    state.model(tokens[:windows], targets[:windows])[1].backward()
    state.model.train()
    state.optimizer.zero_grad(set_to_none=True)
    return time.perf_counter() - start
