"""Log points, evaluations and saves of a run, and the stop at numbers that are not finite."""

import math

import torch
from torch import Tensor

from oelm_lib.errors import UserError
from oelm_lib.files import write_json
from oelm_lib.runs.folder import Run
from oelm_lib.runs.reading import read_metrics
from oelm_lib.training.evaluation import logit_std, mean_loss, token_losses
from oelm_lib.training.session import Session
from oelm_lib.units import format_eta, perplexity


def log(session: Session, norm: Tensor, rate: float) -> None:
    """Record the mean loss since the last log point, and show progress.

    The host reads the device once.

    Args:
        norm: Gradient norm of the last step, on the device.
        rate: Learning rate of the last step.
    """
    cfg, state, budget = session.cfg, session.state, session.budget
    with budget("step"):
        mean = state.loss_sum / state.loss_steps
        numbers = torch.cat([state.health.numbers, torch.stack([mean, norm.double()])]).tolist()
        check_numbers(session, numbers[:3])
    mean_train_loss, grad_norm = numbers[3:]
    state.reset_interval()
    step_seconds = session.progress.log_point(state.step)
    left = session.progress.seconds_left(state.step)
    fields = {
        "tokens": state.tokens,
        "learning_rate": rate,
        "tokens_per_s": cfg.step_tokens / step_seconds,
        "seconds": budget.seconds,
    }
    session.recorder.train(state.step, mean_train_loss, grad_norm=grad_norm, **fields)
    session.status.update(
        write=False,
        step=state.step,
        train_loss=mean_train_loss,
        steps_per_s=1 / step_seconds,
        eta_seconds=left,
        memory_bytes=session.memory_bytes(),
        budget=budget.to_dict(),
        **fields,
    )
    share = state.step / cfg.train.max_steps
    session.console.progress(
        f"step {state.step:,}/{cfg.train.max_steps:,} ({share:.0%})  loss {mean_train_loss:.4f}"
        f"  lr {rate:.2e}  {fields['tokens_per_s']:,.0f} tokens/s  {format_eta(left)}",
        last=state.is_last_step,
    )


def evaluate(session: Session) -> None:
    """Score the fixed subset of the validation split, and keep the weights with the least loss.

    Raises:
        UserError: The loss is not finite.
    """
    state, budget = session.state, session.budget
    session.status.update(state="evaluating", step=state.step)
    check_numbers(session)
    started, spent = budget.seconds, budget.spent["evaluation"]
    with budget("evaluation"):
        loss = mean_loss(token_losses(state.model, session.windows, session.subset))
        spread = logit_std(state.model, session.windows.batch(session.subset[:1])[0])
    check_val_loss(session, loss)
    is_best = state.best is None or loss < state.best["loss"]
    state.evals.append([state.step, loss])
    session.recorder.evaluation(
        state.step,
        loss,
        is_best,
        tokens=state.tokens,
        eval_tokens=len(session.subset) * session.windows.length,
        eval_seconds=budget.spent["evaluation"] - spent,
        seconds=budget.seconds,
        logit_std=spread,
    )
    if sample := session.sampler():
        session.recorder.sample(state.step, sample)
    if is_best:
        state.best = {"step": state.step, "loss": loss}
        save(session, "best.pt")
    session.progress.add_evaluation(budget.seconds - started)
    session.status.update(state="running", evals=state.evals, best=state.best)
    best = " (best so far)" if is_best else ""
    session.console.line(
        f"step {state.step:,}: val_loss {loss:.4f}, perplexity {perplexity(loss):.2f}{best}"
    )


def save(session: Session, name: str = "latest.pt") -> None:
    """Check that all numbers are finite, then write a checkpoint.

    Only the weights of best.pt are read, so the optimizer's moments are left out there.
    """
    state, budget, is_latest = session.state, session.budget, name == "latest.pt"
    check_numbers(session)
    session.status.update(state="saving", step=state.step)
    before = budget.spent["saving"]
    with budget("saving"):
        record = {
            "offsets": session.recorder.offsets(),
            "time": {"spent": dict(budget.spent), "elapsed": budget.seconds},
        }
        saved = state.state_dict(with_optimizer=is_latest) | {"record": record}
        session.saver.save(session.run.path / name, saved, keep_previous=is_latest)
    if is_latest:
        session.progress.add_save(budget.spent["saving"] - before)
    session.status.update(state="running")


def check_numbers(session: Session, numbers: list[float] | None = None) -> None:
    """Stop the run where the loss or gradient norm of a step was not finite.

    Args:
        numbers: `Health.numbers`, where the host has read them already.

    Raises:
        UserError: The run has failed; bad_step.json says at which step.
    """
    health = session.state.health
    if bad := health.failure(health.numbers.tolist() if numbers is None else numbers):
        in_a_row = f" for {health.limit} steps in a row" if health.limit > 1 else ""
        what = f"loss is {bad.loss:.4g}, gradient norm {bad.norm:.4g}{in_a_row}"
        reason = _write_bad_step(session, bad.step, what, loss=bad.loss, grad_norm=bad.norm)
        raise UserError(
            f"{reason}; the run is kept in {session.run.path}, look at the step:"
            f" oelm replay {session.run.name}; {_remedy(session)}"
        )


def check_val_loss(session: Session, loss: float) -> None:
    """Stop the run where a validation loss is not finite.

    Raises:
        UserError: It is not; bad_step.json says at which step.
    """
    if not math.isfinite(loss):
        what = f"val_loss is {loss:.4g}"
        reason = _write_bad_step(session, session.state.step, what, val_loss=loss)
        raise UserError(f"{reason}; the run is kept in {session.run.path}; {_remedy(session)}")


def _write_bad_step(session: Session, step: int, what: str, **numbers: float) -> str:
    """Write at which step the run failed, its batch and numbers; returns the reason in words."""
    run, windows = session.run, session.state.batches.window_numbers(step - 1)
    reason = f"step {step:,}: {what}; {_last_finite(run)}"
    record = {"step": step, "windows": windows.tolist(), "reason": reason, **numbers}
    write_json(run.path / "bad_step.json", record, run.lock.check)
    return reason


def _last_finite(run: Run) -> str:
    """The last recorded training loss, in words."""
    rows = read_metrics(run)
    rows = rows[(rows["event"] == "train") & rows["loss"].notna()]
    if not len(rows):
        return "no finite loss before"
    return f"last finite loss {rows['loss'].iloc[-1]:.4f} at step {rows['step'].iloc[-1]:,}"


def _remedy(session: Session) -> str:
    """What may help a run whose numbers are not finite."""
    if session.state.precision.name == "fp32":
        return "lower optim.learning_rate"
    return "lower optim.learning_rate or use train.precision=fp32"
