"""Losses on fixed windows; draws no random number and leaves the model as it was."""

import hashlib
from collections.abc import Callable

import numpy as np
import torch
from torch import nn

from oelm_lib.data.batches import IGNORED, EvalWindows
from oelm_lib.model.gpt import GPT

BATCH_TOKENS = 8192
"""Tokens in an evaluation batch: without autograd more fit than in training."""


@torch.no_grad()
def token_losses(
    model: GPT,
    windows: EvalWindows,
    numbers: np.ndarray,
    stopping: Callable[[], bool] = lambda: False,
) -> np.ndarray:
    """Nats of every scored token of these windows, in order, in fp32; cut short where `stopping` says so."""
    was_training = model.training
    model.eval()
    losses = []
    for part in np.split(
        numbers, range(0, len(numbers), max(BATCH_TOKENS // windows.length, 1))[1:]
    ):
        tokens, targets = windows.batch(part)
        losses.append(model.token_losses(tokens, targets)[targets != IGNORED])
        if stopping():
            break
    model.train(was_training)
    return torch.cat(losses).cpu().numpy()


@torch.no_grad()
def logit_std(model: GPT, tokens: torch.Tensor) -> list[float]:
    """Standard deviation of each layer's attention scores over queries and their keys, the mean of its heads."""
    was_training = model.training
    model.eval()
    found = [
        torch.stack([head[head.isfinite()].std() for head in scores.transpose(0, 1)]).mean().item()
        for scores in model.attention_scores(tokens)  # (B, H, T, T)
    ]
    model.train(was_training)
    return found


def mean_loss(losses: np.ndarray) -> float:
    """Mean nats per token, summed in double precision."""
    return float(losses.mean(dtype=np.float64))


def document_losses(
    losses: np.ndarray, tokens: np.ndarray, eot: int | None, block: int
) -> dict[str, np.ndarray]:
    """Sum the losses of a whole split by document.

    Args:
        losses: Nats of tokens 1, 2, ... of the split.
        tokens: The split.
        eot: Id that ends a document; None: blocks of `block` losses stand for documents.

    Returns:
        nats: (documents,) float64; tokens: (documents,) int64, those scored.
    """
    before = np.arange(len(losses)) // block if eot is None else np.cumsum(tokens[:-1] == eot)
    counts = np.bincount(before)
    sums = np.bincount(before, weights=losses.astype(np.float64))
    return {"nats": sums[counts > 0], "tokens": counts[counts > 0]}


def frozen_digest(model: nn.Module) -> tuple[str, int]:
    """SHA-256 over names and bytes of all frozen tensors, and their number."""
    digest, count = hashlib.sha256(), 0
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            digest.update(name.encode())
            digest.update(parameter.detach().cpu().numpy().tobytes())
            count += 1
    return digest.hexdigest(), count
