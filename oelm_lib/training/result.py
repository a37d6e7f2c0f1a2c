"""End of a run: both checkpoints on the whole validation split, the freeze proof, the summary."""

import math
from typing import Any

import numpy as np

from oelm_lib.errors import UserError
from oelm_lib.files import write_json
from oelm_lib.runs.documents import write_documents
from oelm_lib.runs.process import now
from oelm_lib.runs.reading import read_metrics
from oelm_lib.runs.timing import timing_stats
from oelm_lib.training import checkpoint
from oelm_lib.training.evaluation import document_losses, mean_loss, token_losses
from oelm_lib.training.record import check_val_loss
from oelm_lib.training.session import Session
from oelm_lib.units import perplexity


def finish(session: Session) -> bool:
    """Score the whole validation split, prove the freeze and write the result.

    Returns:
        False where a stop was requested meanwhile; nothing is written then.

    Raises:
        UserError: The loss is not finite.
        RuntimeError: A frozen tensor has changed.
    """
    state, run, budget = session.state, session.run, session.budget
    with budget("saving"):
        session.saver.wait()
    session.status.update(state="evaluating", step=state.step)
    with budget("final_evaluation"):
        losses = whole_split_losses(session)
        final_loss = mean_loss(losses)
        is_best = state.best["step"] == state.step
        best_loss = final_loss if is_best else _best_loss(session)
    if session.stop_requested():
        return False
    check_val_loss(session, final_loss)
    state.proof.end(state.step)
    corpus, block = run.corpus, run.corpus.block_tokens(session.cfg.model.max_seq_len)
    documents = document_losses(losses, corpus.tokens("val"), corpus.eot, block)
    write_documents(run.path, documents, run.lock.check)
    spent = budget.to_dict()
    wall = sum(spent.values())  # not of a later moment: the recorded parts add up to it
    timing = timing_stats(
        session.cfg,
        read_metrics(run),
        spent,
        wall,
        best_loss,
        state.batches.epoch_steps,
    )
    write_json(run.path / "timing_stats.json", timing, run.lock.check, checksum=True)
    summary = _summary(session, final_loss, best_loss, wall, timing["mean_step_time"])
    write_json(run.path / "summary.json", summary, run.lock.check, checksum=True)
    return True


def whole_split_losses(session: Session) -> np.ndarray:
    """Return the nats of every token of the validation split; stop early on request."""
    windows = session.windows
    numbers = np.arange(windows.count)
    return token_losses(session.state.model, windows, numbers, session.stop_requested)


def _best_loss(session: Session) -> float | None:
    """Loss of best.pt on the whole split; None where the file is damaged or of another step."""
    model = session.state.model
    path, step = session.run.path / "best.pt", session.state.best["step"]
    try:
        best = checkpoint.load(path)
        if best["step"] != step:
            raise UserError(f"{path}: holds step {best['step']}, the best was step {step}")
    except (checkpoint.DamagedError, UserError, FileNotFoundError) as error:
        session.console.line(
            f"Warning: {error}; best_val_loss is unknown, final_val_loss is not affected"
        )
        return None
    last = {name: value.clone() for name, value in model.state_dict().items()}
    model.load_state_dict(best["model"])
    loss = mean_loss(whole_split_losses(session))
    model.load_state_dict(last)
    return loss


def _summary(
    session: Session,
    final_loss: float,
    best_loss: float | None,
    wall_seconds: float,
    mean_step_seconds: float,
) -> dict[str, Any]:
    """Content of summary.json; losses in nats per token."""
    cfg, run, state = session.cfg, session.run, session.state
    split = run.corpus.manifest["splits"]["val"]
    return {
        "run": run.name,
        "id": cfg.id,
        "slug": cfg.slug,
        "title": cfg.title,
        "kind": cfg.kind,
        "seed": run.seed,
        "steps": state.step,
        "tokens": state.tokens,
        "epochs": state.step / state.batches.epoch_steps,
        "best_step": state.best["step"],
        "best_subset_loss": state.best["loss"],
        "best_val_loss": best_loss,
        "final_val_loss": final_loss,
        "final_test_loss": None,
        "best_val_perplexity": None if best_loss is None else perplexity(best_loss),
        "final_val_perplexity": perplexity(final_loss),
        "final_bits_per_byte": final_loss * split["tokens"] / split["bytes"] / math.log(2),
        "subset_error": state.evals[-1][1] - final_loss,
        "parameters": state.parameter_counts,
        "frozen": state.proof.intervals,
        "wall_seconds": wall_seconds,
        "mean_step_seconds": mean_step_seconds,
        "finished": now(),
    }
