"""Steps that leave no trace in the run folder: a trial before a run, the replay of a step that went bad."""

import json
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

from oelm_lib.errors import UserError
from oelm_lib.runs.folder import Run, reopen
from oelm_lib.training import checkpoint
from oelm_lib.training.evaluation import token_losses
from oelm_lib.training.precision import device_name
from oelm_lib.training.session import Session

WARM_STEPS = 3
"""First steps of a trial, which are slower and are not timed."""


def trial(run: Run, outputs: Path, steps: int = 20) -> dict[str, Any]:
    """Train some steps, score a batch and save once below `outputs`; nothing of it stays.

    Returns:
        device, precision, seconds: (low, high) of the whole run, checkpoint_bytes.
    """
    session = Session(run)
    session.build()
    session.start_clocks()
    for number in range(WARM_STEPS + steps):
        start = time.perf_counter()
        session.advance()
        if session.device.type == "cuda":
            torch.cuda.synchronize(session.device)
        if number >= WARM_STEPS:
            session.forecast.step(time.perf_counter() - start)
    windows = session.subset[: max(len(session.subset) // 8, 1)]
    start = time.perf_counter()
    token_losses(session.model, session.windows, windows)
    session.forecast.evaluation((time.perf_counter() - start) * len(session.subset) / len(windows))
    start = time.perf_counter()
    with tempfile.TemporaryDirectory(dir=outputs) as folder:
        path = Path(folder) / "trial.pt"
        checkpoint.save(
            path, {"model": session.model.state_dict(), "optimizer": session.optimizer.state_dict()}
        )
        size = path.stat().st_size
    session.forecast.save(time.perf_counter() - start)
    return {
        "device": device_name(session.device),
        "precision": session.precision.name,
        "seconds": session.forecast.left(1),
        "checkpoint_bytes": size,
    }


def replay(path: Path) -> str:
    """Run the step of bad_step.json again, from the newest checkpoint: its loss, and the gradient norm of each tensor.

    Raises:
        UserError: No step of this run went bad, or its checkpoint is of a later step.
    """
    try:
        record = json.loads((path / "bad_step.json").read_text())
        bad = int(record["step"])
    except (OSError, ValueError, TypeError, KeyError):
        raise UserError(
            f"{path}: no readable bad_step.json, so no step to replay; see oelm status"
        ) from None
    session = Session(reopen(path))
    session.build(checkpoint.load_latest(path)[0])
    if session.step >= bad:
        raise UserError(
            f"{path}: the newest checkpoint, of step {session.step}, is past step {bad}; nothing to replay"
        )
    start = session.step
    while session.step < bad - 1:
        session.advance()
    session.freeze()
    with session.precision.autocast():
        _, loss = session.model(*session.batches(session.step))
    session.precision.scaler.scale(loss).backward()
    session.precision.scaler.unscale_(session.optimizer)
    norms = {
        name: p.grad.norm().item()
        for name, p in session.model.named_parameters()
        if p.grad is not None
    }
    before = record.get("loss") or "no number"
    lines = [
        f"step {bad:,} again from step {start:,}: loss {loss.item():.6g}, then it was {before}"
    ]
    return "\n".join(
        [
            *lines,
            "gradient norm by tensor:",
            *(f"{norm:12.4g}  {name}" for name, norm in norms.items()),
        ]
    )
