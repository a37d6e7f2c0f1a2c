"""Probes of trained models: attention recomputed from what SDPA gets, losses by slice, weights against their start."""

import fnmatch
import functools
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from oelm_lib.arms import arm_name
from oelm_lib.data.batches import IGNORED, EvalWindows
from oelm_lib.errors import UserError
from oelm_lib.explore import measures
from oelm_lib.model.gpt import GPT
from oelm_lib.runs.logs import find_run
from oelm_lib.runs.reading import find_runs
from oelm_lib.training.trained import Trained, open_trained

MAP_TOKENS, LOSS_TOKENS = 2048, 32768
"""Tokens of the validation split (evenly spread windows) over which attention and losses are averaged."""
ROLES = {
    "previous_token": "previous token",
    "duplicate_token": "duplicate token",
    "induction": "induction",
}
MEANS = "copying_in_text logit_std entropy concentration first_token local effective_rank q_orthogonality_error".split()
"""Columns of head_table whose means over the heads stand in the probe table."""
STRONG = 0.3
"""A head with a larger share of its attention in a role has that role."""
KEPT = 32
"""Arms whose numbers are kept: a page shows fewer, a sweep probes hundreds, and each holds its model."""
SEED = 0
"""Of the random sequences that heads are scored on: the same for all arms."""


def open_arms(runs: str, which: str = "latest", outputs: str | Path = "") -> list[Trained]:
    """Open the runs that are named, parted by spaces; the first is what others are held to.

    Args:
        runs: Names as for runs.logs.find_run, and globs of <ID>/seed<k> (no rehearsals) or <folder>/seed<k>.

    Raises:
        UserError: Nothing is called so, or it has no such checkpoint.
    """
    paths = {f"{path.parent.name}/{path.name}": path for path in find_runs(outputs or None)}
    short = {
        name.split("_")[0] + "/" + path.name: path
        for name, path in paths.items()
        if "+" not in name
    }
    found: list[Path] = []
    for name in runs.split():
        matched = [path for key, path in (short | paths).items() if fnmatch.fnmatch(key, name)]
        found += (
            matched if any(sign in name for sign in "*?[") else [find_run(name, outputs or None)]
        )
    arms = [open_trained(path, which, outputs) for path in dict.fromkeys(found)]
    if not arms:
        raise UserError(
            f"runs = {runs!r}: no run is called so; train some (make demo), see oelm status"
        )
    return arms


def label(arm: Trained) -> str:
    """Arm and run, for headings."""
    name = arm_name(arm.config.to_dict(), arm.config.science_overrides)
    folder = arm.path.parent.name
    return f"{name} ({folder if '+' in folder else arm.config.id}, seed {arm.seed})"


@torch.no_grad()
def attention_maps(model: GPT, tokens: Tensor) -> np.ndarray:
    """What each query gives to each key, (L, B, H, T, T)."""
    return np.stack([scores.softmax(-1).numpy() for scores in model.attention_scores(tokens)])


@functools.lru_cache(maxsize=KEPT)
@torch.no_grad()
def head_table(arm: Trained) -> pd.DataFrame:
    """One row a head: its roles on repeated random tokens, its attention on validation windows, its spectrum.

    `copying_in_text` is the share that goes to keys which hold the next token, where it stood earlier.

    Random tokens are drawn from those of the validation split, so that no token is one the model never saw.
    """
    model, cfg = arm.model, arm.config.model
    repeated, period = _repeated(arm)
    copies = attention_maps(model, repeated).mean(1)  # (L, H, T, T)
    spectra, weights = spectrum(arm), _qk_weights(arm)
    rows = []
    tokens, targets = _windows(arm, MAP_TOKENS)
    text = torch.cat([tokens, targets[:, -1:]], 1).numpy()
    for layer, scores in enumerate(model.attention_scores(tokens)):
        maps = scores.softmax(-1).numpy()  # (B, H, T, T)
        copying = measures.copying_mass(maps, text)
        kept = scores.isfinite()
        for head in range(cfg.num_heads):
            mine, copied = maps[:, head], copies[layer, head]
            row = {
                "layer": layer,
                "head": head,
                "previous_token": measures.previous_token_score(copied),
                "duplicate_token": measures.duplicate_token_score(copied, period),
                "induction": measures.induction_score(copied, period),
                "previous_in_text": measures.previous_token_score(mine).mean(),
                "copying_in_text": copying[head],
                "entropy": measures.normalised_entropy(mine).mean(),
                "concentration": measures.concentration(mine).mean(),
                "first_token": measures.first_token_mass(mine).mean(),
                "local": measures.local_mass(mine).mean(),
                "logit_std": scores[:, head][kept[:, head]].std().item(),
                "effective_rank": measures.effective_rank(spectra[layer, head]),
            }
            errors = [measures.orthogonality_error(weight)[head] for weight in weights[layer][:2]]
            rows.append(
                row
                | dict(zip(("q_orthogonality_error", "k_orthogonality_error"), errors, strict=True))
            )
    return pd.DataFrame(rows)


def roles(arms: Sequence[Trained]) -> pd.DataFrame:
    """One row an arm: the heads with each role as layer.head (score), or the one that comes nearest to it."""
    rows = []
    for arm in arms:
        row, heads = {"arm": label(arm)}, head_table(arm)
        for role, words in ROLES.items():
            ranked = heads.sort_values(role, ascending=False)
            named = [f"{h.layer}.{h.head} ({getattr(h, role):.2f})" for h in ranked.itertuples()]
            count = int((heads[role] > STRONG).sum())
            row[words] = ", ".join(named[:count]) if count else f"none; nearest {named[0]}"
        rows.append(row)
    return pd.DataFrame(rows)


def spectrum(arm: Trained) -> np.ndarray:
    """Singular values (L, H, K) of each head's Q/K form with the LayerNorm gain, largest first."""
    return np.stack(
        [measures.qk_spectrum(query, key, gain) for query, key, gain in _qk_weights(arm)]
    )


@functools.lru_cache(maxsize=KEPT)
def window_losses(arm: Trained) -> tuple[np.ndarray, np.ndarray]:
    """Tokens (N, T + 1) of validation windows, and the nats (N, T) of all but the first of each."""
    tokens, targets = _windows(arm, LOSS_TOKENS)
    with torch.no_grad():
        parts = zip(tokens.split(64), targets.split(64), strict=True)
        losses = torch.cat([arm.model.token_losses(*part) for part in parts])
    return torch.cat([tokens, targets[:, -1:]], 1).numpy(), losses.numpy()


def slices(arms: Sequence[Trained]) -> pd.DataFrame:
    """Loss of each arm on tokens that could be copied from their window and on the others; shares of its gap.

    `gap` is in nats to the first arm; `gap_share` is the part of the whole gap that lies on these tokens.
    """
    base, rows = window_losses(arms[0]), []
    chosen = {
        "all": np.ones(base[1].shape, bool),
        "end an earlier bigram": (bigram := measures.repeats(base[0], 2)),
        "do not": ~bigram,
        "stood earlier": (token := measures.repeats(base[0], 1)),
        "are new in the window": ~token,
    }
    for arm in arms:
        tokens, losses = window_losses(arm)
        if not np.array_equal(tokens, base[0]):
            raise UserError(
                f"{arm.name}: reads other windows than {arms[0].name}; compare runs of one corpus and length"
            )
        excess = losses - base[1]
        for words, mask in chosen.items():
            row = {
                "arm": label(arm),
                "tokens_that": words,
                "token_share": mask.mean(),
                "loss": losses[mask].mean(),
            }
            share = excess[mask].sum() / excess.sum() if arm is not arms[0] else np.nan
            rows.append(row | {"gap_nats": excess[mask].mean(), "gap_share": share})
    return pd.DataFrame(rows)


def summary(arms: Sequence[Trained]) -> pd.DataFrame:
    """The probe table: one row an arm."""
    rows = []
    for arm in arms:
        heads, (_, losses) = head_table(arm), window_losses(arm)
        repeated, period = _repeated(arm)
        with torch.no_grad():
            copies = arm.model.token_losses(repeated[:, :-1], repeated[:, 1:]).numpy()
        row = {"arm": label(arm), "step": arm.step, "loss": losses.mean()}
        row |= {"in_context": measures.in_context_score(losses)}
        row |= {"copy_gain": copies[:, 1:period].mean() - copies[:, period + 1 :].mean()}
        row |= {key: heads[key].mean() for key in MEANS}
        row |= {"recall_accuracy": recall_accuracy(arm)} if arm.corpus.recall else {}
        rows.append(row | {f"best_{role}": heads[role].max() for role in ROLES})
    return pd.DataFrame(rows)


def recorded(path: Path) -> dict[str, float]:
    """What a run's record keeps of the probes of its last weights: the probe table's numbers, and losses by slice."""
    arm = open_trained(path)
    row = summary([arm]).drop(columns=["arm", "step"]).iloc[0].to_dict()
    parts = slices([arm]).set_index("tokens_that")
    for words, key in (("end an earlier bigram", "repeated_bigrams"), ("do not", "other_tokens")):
        row |= {
            f"loss_on_{key}": parts["loss"][words],
            f"share_of_{key}": parts["token_share"][words],
        }
    return {key: float(f"{value:.5g}") for key, value in row.items() if np.isfinite(value)}


def recall_accuracy(arm: Trained) -> float:
    """Share of the queries of associative recall that are answered rightly, over validation examples."""
    length = arm.config.model.max_seq_len
    windows = EvalWindows(arm.corpus.tokens("val"), length, torch.device("cpu"), arm.corpus.recall)
    tokens, targets = windows.batch(windows.subset(LOSS_TOKENS))
    with torch.no_grad():
        right = arm.model(tokens)[0].argmax(-1) == targets
    return right[targets != IGNORED].float().mean().item()


def drifts(arm: Trained) -> pd.DataFrame:
    """How far each weight went from its start, relative to it; the start is made again from the seed."""
    start = dict(GPT(arm.config.model, arm.seed).named_parameters())
    moved = {
        name: (now.detach().numpy(), start[name].detach().numpy())
        for name, now in arm.model.named_parameters()
    }
    return pd.DataFrame(
        [{"weight": name, "drift": measures.drift(*pair)} for name, pair in moved.items()]
    )


def logit_spread(arm: Trained) -> pd.DataFrame:
    """The logits' standard deviation over training: step, layer, logit_std; from the evaluations' rows."""
    lines = (arm.path / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    rows = [row for row in map(json.loads, lines) if row.get("logit_std")]
    points = [
        (row["step"], layer, std) for row in rows for layer, std in enumerate(row["logit_std"])
    ]
    return pd.DataFrame(points, columns=["step", "layer", "logit_std"])


def next_tokens(arm: Trained, prompt: str, count: int = 10) -> pd.DataFrame:
    """The likeliest tokens after a prompt, with their probabilities."""
    with torch.no_grad():
        share = arm.model(arm.encode(prompt))[0][0, -1].softmax(-1)
    values, ids = share.topk(min(count, len(share)))
    words = [arm.tokenizer.decode([number]) for number in ids.tolist()]
    return pd.DataFrame({"token": words, "probability": values.numpy()})


def _windows(arm: Trained, tokens: int) -> tuple[Tensor, Tensor]:
    """Whole windows of the validation split, evenly spread: tokens and targets (N, T)."""
    windows = EvalWindows(
        arm.corpus.tokens("val"), arm.config.model.max_seq_len, torch.device("cpu")
    )
    found, targets = windows.batch(windows.subset(tokens))
    whole = (targets != IGNORED).all(1)
    return found[whole], targets[whole]


def _repeated(arm: Trained, count: int = 32) -> tuple[Tensor, int]:
    """measures.repeated_tokens for this arm, and their period."""
    period = (arm.config.model.max_seq_len - 1) // 2
    seen, eot = np.unique(arm.corpus.tokens("val")), arm.corpus.eot
    first, ids = (seen[0], seen[1:]) if eot is None else (eot, seen[seen != eot])
    tokens = measures.repeated_tokens(
        np.random.default_rng(SEED), ids.astype(np.int64), int(first), period, count
    )
    return torch.from_numpy(tokens), period


def _qk_weights(arm: Trained) -> list[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Of each layer: W_q and W_k (H, K, D) with all that is linear folded in, and the LayerNorm's gain (D)."""
    found: list[Any] = []
    with torch.no_grad():
        for block in arm.model.blocks:
            heads = [
                (weight.unflatten(0, (block.attention.num_heads, -1)))
                for weight, _ in block.attention.as_linear()
            ]
            found.append((*(weight.numpy() for weight in heads), block.ln1.weight.numpy()))
    return found
