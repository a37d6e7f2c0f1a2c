"""The training loop."""

import math
from collections.abc import Callable

import numpy as np
import torch

from oelm_lib.config import Experiment
from oelm_lib.errors import UserError
from oelm_lib.files import replacing, write_json
from oelm_lib.runs.folder import Run
from oelm_lib.runs.metrics import perplexity
from oelm_lib.runs.process import now
from oelm_lib.runs.reading import read_metrics
from oelm_lib.runs.status import format_eta
from oelm_lib.runs.summary import Summary
from oelm_lib.runs.timing import timing_stats
from oelm_lib.training import checkpoint
from oelm_lib.training.distributed import agree
from oelm_lib.training.evaluation import document_losses, logit_std, mean_loss, token_losses
from oelm_lib.training.optim import gradients, learning_rates, update
from oelm_lib.training.session import Session
from oelm_lib.training.state import state_of


def train(cfg: Experiment, run: Run, on_progress: Callable[[bool], None] | None = None) -> Summary:
    """Train a run from where it stands to its end, and record it; a finished run is only shown.

    SIGINT, SIGTERM, SIGUSR1 or a STOP file in the run folder save and stop; the same call goes on later.

    Args:
        on_progress: Called whenever the progress line is renewed, with whether it is the last time.

    Raises:
        UserError: Numbers go bad, the disk is full, or the run cannot be continued.
    """
    if run.finished:
        print(
            f"{run.name} is done: shown, not trained again (oelm run ID --fresh starts anew and keeps the old folder)"
        )
        return Summary(run)
    with Session(run) as session:
        session.console.on_progress = on_progress
        while session.step < cfg.train.max_steps and not agree(session.stopping(), session.device):
            # batch
            with session.budget("data"):
                batch = session.batches(session.step)

            # forward, backward, check, update
            with session.budget("step"):
                session.freeze()
                rates = learning_rates(session.step, cfg.optim, cfg.train.max_steps)
                loss, norm = gradients(
                    session.training_model,
                    session.optimizer,
                    session.precision,
                    batch,
                    cfg.optim.grad_clip,
                )
                session.guard.watch(session.optimizer, session.step, loss, norm)
                update(session.optimizer, session.precision, rates)
                session.step += 1

            # log
            _record(session, loss, norm, rates[0])

            # evaluate
            last = session.step == cfg.train.max_steps
            if session.step % cfg.train.eval_interval == 0 or last:
                _evaluate(session)

            # save
            if session.step % cfg.train.save_interval == 0 or last:
                _save(session)
        if session.step < cfg.train.max_steps or not _finish(session):
            _save(session)
            session.saver.wait()
            session.console.line(
                f"stopped at step {session.step:,}, saved; the same command goes on from here"
            )
    return Summary(run)


def _record(session: Session, loss: torch.Tensor, norm: torch.Tensor, rate: float) -> None:
    """Add a step to the interval; at a log point write its row and show progress."""
    interval, cfg = session.interval, session.cfg
    interval["loss"] += loss
    interval["steps"] += 1
    if session.step % cfg.machine.log_interval and session.step != cfg.train.max_steps:
        return
    with session.budget("step"):
        session.guard.check(session.step)
        mean, last_norm = (interval["loss"] / interval["steps"]).item(), norm.item()
    step_seconds = session.seconds_per_step()
    step_tokens = cfg.train.batch_size * cfg.model.max_seq_len
    session.interval = {"loss": torch.zeros_like(interval["loss"]), "steps": 0}
    fields = {
        "tokens": session.step * step_tokens,
        "learning_rate": rate,
        "grad_norm": last_norm,
        "tokens_per_s": step_tokens / step_seconds,
        "seconds": session.budget.seconds,
    }
    session.recorder.train(session.step, mean, **fields)
    left = session.forecast.left(session.step)
    session.status.update(
        write=False,
        step=session.step,
        train_loss=mean,
        steps_per_s=1 / step_seconds,
        eta_seconds=left,
        memory_bytes=session.memory_bytes(),
        budget=session.budget.to_dict(),
        **{key: fields[key] for key in ("tokens", "learning_rate", "tokens_per_s", "seconds")},
    )
    session.console.progress(
        f"step {session.step:,}/{cfg.train.max_steps:,} ({session.step / cfg.train.max_steps:.0%})  loss {mean:.4f}"
        f"  lr {rate:.2e}  {fields['tokens_per_s']:,.0f} tokens/s  {format_eta(left)}",
        last=session.step == cfg.train.max_steps,
    )


def _evaluate(session: Session) -> None:
    """Score the fixed subset; keep the best weights."""
    cfg, step = session.cfg, session.step
    session.status.update(state="evaluating", step=step)
    before, started = session.budget.spent["evaluation"], session.budget.seconds
    with session.budget("evaluation"):
        loss = mean_loss(token_losses(session.model, session.windows, session.subset))
        spread = logit_std(session.model, session.windows.batch(session.subset[:1])[0])
    new_best = session.best is None or loss < session.best["loss"]
    session.evals.append([step, loss])
    session.recorder.evaluation(
        step,
        loss,
        new_best,
        tokens=step * cfg.train.batch_size * cfg.model.max_seq_len,
        eval_tokens=len(session.subset) * session.windows.length,
        eval_seconds=session.budget.spent["evaluation"] - before,
        seconds=session.budget.seconds,
        logit_std=spread,
    )
    if sample := session.sampler():
        session.recorder.sample(step, *sample)
    if new_best:
        session.best = {"step": step, "loss": loss}
        _save(session, "best.pt")
    session.forecast.evaluation(session.budget.seconds - started)
    session.status.update(state="running", evals=session.evals, best=session.best)
    session.console.line(
        f"step {step:,}: val_loss {loss:.4f}, perplexity {perplexity(loss):.2f}{' (best so far)' if new_best else ''}"
    )


def _save(session: Session, name: str = "latest.pt") -> None:
    """Write a checkpoint, of good numbers only."""
    session.guard.check(session.step)
    session.status.update(state="saving", step=session.step)
    before = session.budget.spent["saving"]
    with session.budget("saving"):
        session.saver.save(
            session.run.path / name, state_of(session), keep_previous=name == "latest.pt"
        )
    if name == "latest.pt":
        session.forecast.save(session.budget.spent["saving"] - before)
    session.status.update(state="running")


def _finish(session: Session) -> bool:
    """Score the whole validation split, prove the freeze, write the result; False where a stop was asked for."""
    cfg, run = session.cfg, session.run
    with session.budget("saving"):
        session.saver.wait()
    session.status.update(state="evaluating", step=session.step)
    with session.budget("final_evaluation"):
        losses = _whole_split(session)
        final_loss = mean_loss(losses)
        best_loss = final_loss if session.best["step"] == session.step else _best_loss(session)
    if session.stopping():
        return False
    block = run.corpus.block_tokens(cfg.model.max_seq_len)
    documents = document_losses(losses, run.corpus.tokens("val"), run.corpus.eot, block)
    with replacing(run.path / "documents.npz") as temporary, open(temporary, "wb") as file:
        np.savez(file, **documents)
    proof = session.prove_freeze()
    split = run.corpus.manifest["splits"]["val"]
    metrics, budget, wall = read_metrics(run), session.budget.to_dict(), session.budget.seconds
    timing = timing_stats(cfg, metrics, budget, wall, best_loss, session.batches.epoch_steps)
    write_json(run.path / "timing_stats.json", timing)
    tokens = session.step * cfg.train.batch_size * cfg.model.max_seq_len
    write_json(
        run.path / "summary.json",
        {
            "run": run.name,
            "id": cfg.id,
            "slug": cfg.slug,
            "title": cfg.title,
            "kind": cfg.kind,
            "seed": run.seed,
            "steps": session.step,
            "tokens": tokens,
            "epochs": session.step / session.batches.epoch_steps,
            "best_step": session.best["step"],
            "best_subset_loss": session.best["loss"],
            "best_val_loss": best_loss,
            "final_val_loss": final_loss,
            "final_test_loss": None,
            "best_val_perplexity": None if best_loss is None else perplexity(best_loss),
            "final_val_perplexity": perplexity(final_loss),
            "final_bits_per_byte": final_loss * split["tokens"] / split["bytes"] / math.log(2),
            "subset_error": session.evals[-1][1] - final_loss,
            "parameters": session.parameters,
            "frozen": proof,
            "wall_seconds": wall,
            "mean_step_seconds": timing["mean_step_time"],
            "finished": now(),
        },
    )
    return True


def _whole_split(session: Session) -> np.ndarray:
    """Nats of every token of the validation split; cut short where a stop is asked for."""
    return token_losses(
        session.model, session.windows, np.arange(session.windows.windows), session.stopping
    )


def _best_loss(session: Session) -> float | None:
    """Loss of best.pt over the whole split; None where the file is damaged, or of another step than is recorded."""
    path, step = session.run.path / "best.pt", session.best["step"]
    try:
        best = checkpoint.load(path)
        if best["step"] != step:
            raise UserError(f"{path}: holds step {best['step']}, the best was step {step}")
    except (checkpoint.DamagedError, UserError, FileNotFoundError) as error:
        session.console.line(
            f"Warning: {error}; best_val_loss is unknown, final_val_loss is not concerned"
        )
        return None
    last = {name: value.clone() for name, value in session.model.state_dict().items()}
    session.model.load_state_dict(best["model"])
    loss = mean_loss(_whole_split(session))
    session.model.load_state_dict(last)
    return loss
