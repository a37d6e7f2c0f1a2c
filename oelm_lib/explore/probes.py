"""Probes of trained models: a run in, a number or a table out."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch

from oelm_lib.data.batches import IGNORED, EvalWindows
from oelm_lib.errors import UserError
from oelm_lib.explore import measures
from oelm_lib.explore.arms import run_label, runs_by_arm
from oelm_lib.explore.attention import ROLES, STRONG, head_table
from oelm_lib.explore.windows import LOSS_TOKENS, repeated_sequences, window_losses
from oelm_lib.training.trained import Trained


@dataclass(frozen=True)
class Probe:
    """One number of a trained model.

    Attributes:
        title: Name with its unit.
        meaning: What it says and which way is good, in one line.
        measure: The number of a run.
    """

    title: str
    meaning: str
    measure: Callable[[Trained], float]


@torch.no_grad()
def copy_gain(run: Trained) -> float:
    """Return the loss on the first copy of random tokens minus the loss on the second."""
    tokens, period = repeated_sequences(run)
    losses = run.model.token_losses(tokens[:, :-1], tokens[:, 1:]).numpy()
    return float(losses[:, 1:period].mean() - losses[:, period + 1 :].mean())


@torch.no_grad()
def recall_accuracy(run: Trained) -> float:
    """Return the share of associative-recall queries answered right; NaN on another corpus."""
    if not run.corpus.recall:
        return float("nan")
    length = run.config.model.max_seq_len
    windows = EvalWindows(run.corpus.tokens("val"), length, torch.device("cpu"), run.corpus.recall)
    tokens, targets = windows.batch(windows.subset(LOSS_TOKENS))
    right = run.model(tokens)[0].argmax(-1) == targets
    return right[targets != IGNORED].float().mean().item()


def _mean(column: str) -> Callable[[Trained], float]:
    return lambda run: head_table(run)[column].mean()


def _best(column: str) -> Callable[[Trained], float]:
    return lambda run: head_table(run)[column].max()


PROBES = {
    "loss": Probe(
        "validation loss (nats per token)",
        "Lower is better.",
        lambda run: np.nanmean(window_losses(run)[1]),
    ),
    "in_context": Probe(
        "in-context score (nats)",
        "Late loss minus early loss in a window. Lower is better: the context helps more.",
        lambda run: measures.in_context_score(window_losses(run)[1]),  # nan of recall
    ),
    "copy_gain": Probe(
        "copy gain (nats)",
        "What a second copy of random tokens saves. Higher is better: 0 means that it cannot copy.",
        copy_gain,
    ),
    "copying_in_text": Probe(
        "copying in text (share)",
        "Attention to keys that hold the next token, mean over heads. Higher: it could copy more.",
        _mean("copying_in_text"),
    ),
    "logit_std": Probe(
        "logit std",
        "Standard deviation of attention scores. Near 0 attention is uniform; neither way is good.",
        _mean("logit_std"),
    ),
    "entropy": Probe(
        "entropy of attention",
        "1 is uniform attention, 0 is one key. Lower is more focused; neither way is good alone.",
        _mean("entropy"),
    ),
    "concentration": Probe(
        "concentration of attention",
        "1 where each query takes one key. Higher is more focused; neither way is good alone.",
        _mean("concentration"),
    ),
    "first_token": Probe(
        "share to the first token",
        "A high share is an attention sink: the head adds little. Neither way is good alone.",
        _mean("first_token"),
    ),
    "local": Probe(
        "share to the last four tokens",
        "Higher is more local. Neither way is good alone.",
        _mean("local"),
    ),
    "effective_rank": Probe(
        "effective rank of the Q/K form",
        "Directions that a head compares: at most its width, which orthogonal weights start with.",
        _mean("effective_rank"),
    ),
    "q_orthogonality_error": Probe(
        "orthogonality error of W_q",
        "0 for orthonormal rows of any norm. It tells whether the arm is what its name says.",
        _mean("q_orthogonality_error"),
    ),
    "recall_accuracy": Probe(
        "associative recall (share right)", "Higher is better; 1 is perfect.", recall_accuracy
    ),
    "best_previous_token": Probe(
        "strongest previous-token head (share)",
        f"Above {STRONG:g} a head looks one token back; induction needs one. Higher is better.",
        _best("previous_token"),
    ),
    "best_duplicate_token": Probe(
        "strongest duplicate-token head (share)",
        f"Above {STRONG:g} a head finds the same token. Higher is better.",
        _best("duplicate_token"),
    ),
    "best_induction": Probe(
        "strongest induction head (share)",
        f"Above {STRONG:g} a head finds what followed the last copy. Higher is better.",
        _best("induction"),
    ),
}
"""Column of the probe table -> probe. A new probe is one function and one entry."""


def probe_values(runs: Sequence[Trained]) -> pd.DataFrame:
    """Return one row per run, one column per probe; probes without a number are left out."""
    rows = [
        {"run": run_label(run), "step": run.step}
        | {key: float(probe.measure(run)) for key, probe in PROBES.items()}
        for run in runs
    ]
    return pd.DataFrame(rows).dropna(axis="columns", how="all")


def loss_by_slice(runs: Sequence[Trained]) -> pd.DataFrame:
    """Return each arm's loss on tokens that it could copy from the window, and on the others.

    Losses are means over the arm's seeds. `gap_nats` is the loss above that of the first arm;
    `gap_share` is the part of the whole gap that lies on these tokens.

    Raises:
        UserError: A run reads other windows than the first one.
    """
    tokens, first = window_losses(runs[0])
    scored = np.isfinite(first)
    losses = {
        arm: np.mean([_losses_on(run, tokens, runs[0]) for run in members], axis=0)
        for arm, members in runs_by_arm(runs).items()
    }
    reference = next(iter(losses))
    bigram, token = measures.repeats(tokens, 2), measures.repeats(tokens, 1)
    masks = {
        "all": scored,
        "end an earlier bigram": scored & bigram,
        "do not": scored & ~bigram,
        "stood earlier": scored & token,
        "are new in the window": scored & ~token,
    }
    rows = []
    for arm, own in losses.items():
        excess = own - losses[reference]
        for words, mask in masks.items():
            share = np.nan if arm == reference else excess[mask].sum() / excess[scored].sum()
            rows.append(
                {
                    "arm": arm,
                    "tokens_that": words,
                    "token_share": mask.sum() / scored.sum(),
                    "loss": own[mask].mean() if mask.any() else np.nan,
                    "gap_nats": excess[mask].mean() if mask.any() else np.nan,
                    "gap_share": share,
                }
            )
    return pd.DataFrame(rows)


def _losses_on(run: Trained, tokens: np.ndarray, first: Trained) -> np.ndarray:
    """Return a run's losses (N, T) on the windows `tokens` of the first run, or raise UserError."""
    own, losses = window_losses(run)
    if not np.array_equal(own, tokens):
        raise UserError(
            f"{run.name}: its validation windows differ from those of {first.name}; compare runs"
            " with the same corpus and max_seq_len"
        )
    return losses


def roles(runs: Sequence[Trained]) -> pd.DataFrame:
    """Return one row per arm and role: how many heads have it, and the strongest (layer.head)."""
    rows = []
    for name, members in runs_by_arm(runs).items():
        tables = [head_table(run) for run in members]
        for role, words in ROLES.items():
            heads = pd.concat(tables).sort_values(role, ascending=False)
            best = heads.iloc[0]
            rows.append(
                {
                    "arm": name,
                    "role": words,
                    "heads_with_the_role": f"{(heads[role] > STRONG).sum()} of {len(heads)}",
                    "strongest": f"layer {best['layer']:.0f}, head {best['head']:.0f}",
                    "share": best[role],
                }
            )
    return pd.DataFrame(rows)


@torch.no_grad()
def likeliest_tokens(run: Trained, prompt: str, count: int) -> pd.DataFrame:
    """Return the likeliest tokens after a prompt, with their probabilities."""
    share = run.model(run.encode(prompt))[0][0, -1].softmax(-1)
    values, ids = share.topk(min(count, len(share)))
    words = [run.tokenizer.decode([number]) for number in ids.tolist()]
    return pd.DataFrame({"token": words, "probability": values.numpy()})
