"""The step at which a run diverged, made again; nothing is written."""

from pathlib import Path

from oelm_lib.errors import UserError
from oelm_lib.files import read_json
from oelm_lib.runs.folder import reopen
from oelm_lib.runs.reading import RunFolder
from oelm_lib.training.state import resumed_state


def replay_step(run: RunFolder) -> str:
    """Make the step of bad_step.json again, from the newest checkpoint.

    Args:
        run: The run, or its folder.

    Returns:
        Lines of text: the step's loss, and the gradient norm of each tensor.

    Raises:
        UserError: No step of this run went bad, or the newest checkpoint is of a later step.
    """
    path = Path(run)
    try:
        record = read_json(path / "bad_step.json") or {}
        bad = int(record["step"])
    except (UserError, ValueError, TypeError, KeyError):
        raise UserError(
            f"{path}: no readable bad_step.json, so no step to replay; see oelm status"
        ) from None
    state = resumed_state(reopen(path))
    start = state.step
    if start >= bad:
        raise UserError(
            f"{path}: the newest checkpoint, of step {start}, is past step {bad}; nothing to replay"
        )
    state.compile()
    while state.step < bad - 1:
        state.advance()
    state.apply_freeze()
    loss = state.backward(state.next_batch())
    scale = state.precision.loss_scale()
    norms = {
        name: (p.grad.norm() / scale).item()
        for name, p in state.model.named_parameters()
        if p.grad is not None
    }
    lines = [
        f"step {bad:,} again from step {start:,}: loss {loss.item():.6g}",
        f"recorded: {record.get('reason')}",
        "gradient norm by tensor:",
        *(f"{norm:12.4g}  {name}" for name, norm in norms.items()),
    ]
    return "\n".join(lines)
