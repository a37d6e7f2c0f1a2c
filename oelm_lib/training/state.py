"""What a checkpoint holds: all that decides how a run goes on, taken from a session and given back to one."""

from typing import TYPE_CHECKING, Any

import torch

from oelm_lib.errors import UserError
from oelm_lib.runs.folder import other_than
from oelm_lib.training.evaluation import frozen_digest

if TYPE_CHECKING:
    from oelm_lib.training.session import Session


def state_of(session: "Session") -> dict[str, Any]:
    """Everything that decides what follows, as tensors and plain values."""
    return {
        "model": session.model.state_dict(),
        "optimizer": session.optimizer.state_dict(),
        "scaler": session.precision.scaler.state_dict(),
        "step": session.step,
        "best": session.best,
        "evals": session.evals,
        "frozen": session.frozen,
        "interval": session.interval,
        "random": {
            "cpu": torch.get_rng_state(),
            "cuda": torch.cuda.get_rng_state(session.device)
            if session.device.type == "cuda"
            else None,
        },
        "offsets": session.recorder.offsets(),
        "time": {"spent": dict(session.budget.spent), "elapsed": session.budget.seconds},
        "experiment": session.cfg.science,
        "seed": session.run.seed,
        "splits": session.run.corpus.manifest["splits"],
        "machine": _machine(session),
    }


def restore(session: "Session", state: dict[str, Any]) -> None:
    """Go on from a checkpoint's state. Raises UserError where it is not one of this run."""
    try:
        if other := other_than(session.run, state["experiment"], state["seed"], state["splits"]):
            raise UserError(
                f"{session.run.path}/latest.pt: made with another config ({other}); go back to it or start anew:"
                " oelm run ID --fresh"
            )
        session.model.load_state_dict(state["model"])
        session.optimizer.load_state_dict(state["optimizer"])
        if state[
            "scaler"
        ]:  # empty where it began in another precision, as fp16 means fp32 on a CPU
            session.precision.scaler.load_state_dict(state["scaler"])
        session.step, session.best, session.evals = state["step"], state["best"], state["evals"]
        session.frozen = state["frozen"]
        session.freeze_as_at(session.frozen[-1]["from_step"])
        session.interval = {
            "loss": state["interval"]["loss"].to(session.device),
            "steps": state["interval"]["steps"],
        }
        torch.set_rng_state(state["random"]["cpu"])
        if session.device.type == "cuda" and state["random"]["cuda"] is not None:
            torch.cuda.set_rng_state(state["random"]["cuda"], session.device)
        session.budget.go_on(**state["time"])
        is_frozen = frozen_digest(session.model)[0] == session.frozen[-1]["sha256_start"]
        before, now = state["machine"], _machine(session)
    except (KeyError, TypeError, AttributeError, IndexError, ValueError, RuntimeError) as error:
        if isinstance(error, UserError | torch.OutOfMemoryError):
            raise
        raise UserError(
            f"{session.run.path}/latest.pt: lacks or breaks something that a checkpoint of this run has"
            f" ({type(error).__name__}: {error}); delete it, or start anew with --fresh"
        ) from None
    if not is_frozen:
        raise UserError(
            f"{session.run.path}/latest.pt: its frozen tensors are not those the run started with; start anew with"
            " --fresh"
        )
    changed = [
        f"{key} was {before.get(key)}, is {value}"
        for key, value in now.items()
        if before.get(key) != value
    ]
    if changed:
        session.warnings.append(
            f"goes on elsewhere than before ({'; '.join(changed)}): equal, but not bit for bit"
        )


def _machine(session: "Session") -> dict[str, Any]:
    """What bit-equal numbers need beside the experiment."""
    return session.resolved() | {"torch": str(torch.__version__)}
