"""Estimate the time of a run: a trial of some steps, and a warning before a slow run."""

import tempfile
import time
from pathlib import Path
from typing import Any

import torch

from oelm_lib.config import overrides_text, parse_overrides
from oelm_lib.data import EvalWindows
from oelm_lib.data.preparation import REHEARSAL
from oelm_lib.model.dropout import evaluation_mode
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
    cfg, state = run.config, TrainingState(run)
    state.compile()
    windows = _val_windows(state)
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
    """Return a warning where a run on a CPU is projected to take over SLOW_SECONDS, or None."""
    if state.device.type != "cpu":
        return None
    train = state.cfg.train
    step_seconds = train.batch_size * _pass_seconds(state, 1)
    if _projected_seconds(state, step_seconds) > SLOW_SECONDS:
        # One window, cold, overstates the step of a small model: measure again before warning.
        # The first pass over a whole batch is cold, too: it can take 40 times as long as the next.
        rows = train.batch_size if step_seconds < 1 else 1
        pass_seconds = min(_pass_seconds(state, rows) for _ in range(2))
        step_seconds = train.batch_size / rows * pass_seconds
    seconds = _projected_seconds(state, step_seconds)
    if seconds < SLOW_SECONDS:
        return None
    days = f" ({seconds / 86400:.1f} days)" if seconds > 86400 else ""
    shorter = _shorter_overrides(state)
    rehearse = f', or rehearse with overrides "{shorter}"' if shorter else ""
    text = f"on this CPU the run will take about {format_duration(seconds)}{days}"
    return f"{text}; use a GPU{rehearse}"


def _shorter_overrides(state: TrainingState) -> str:
    """Return the overrides of a rehearsal that make this run shorter; "" where it is one."""
    shorter = {}
    for key, value in parse_overrides(REHEARSAL).items():
        section, name = key.split(".")
        own = getattr(getattr(state.cfg, section), name)
        if name == "corpus":  # associative recall cannot be rehearsed on a text, and is small
            is_longer = own != value and not state.run.corpus.recall
        else:
            is_longer = own > value
        if is_longer:
            shorter[key] = value
    return overrides_text(shorter)


def _projected_seconds(state: TrainingState, step_seconds: float) -> float:
    """Return the longest projected time of the whole run, evaluations included."""
    windows = _val_windows(state)
    subset = windows.subset(state.cfg.train.eval_tokens)
    progress = Progress(state.cfg, Budget(), 0, 0, (len(subset), windows.count))
    progress.add_step(step_seconds)
    return progress.seconds_left(1)[1]


def _val_windows(state: TrainingState) -> EvalWindows:
    corpus, length = state.run.corpus, state.cfg.model.max_seq_len
    return EvalWindows(corpus.tokens("val"), length, state.device, corpus.recall)


def _pass_seconds(state: TrainingState, rows: int) -> float:
    """Return the seconds of a pass over the first rows of a batch; the state is unchanged."""
    tokens, targets = state.batches(0)
    start = time.perf_counter()
    with evaluation_mode(state.model):
        state.model(tokens[:rows], targets[:rows])[1].backward()
    state.optimizer.zero_grad(set_to_none=True)
    return time.perf_counter() - start
