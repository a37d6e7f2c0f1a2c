"""Losses on fixed windows; no random number is drawn, and the model is left as it was."""

from collections.abc import Callable

import numpy as np
import torch

from oelm_lib.data.batches import IGNORED, EvalWindows
from oelm_lib.model.dropout import evaluation_mode
from oelm_lib.model.gpt import GPT

BATCH_TOKENS = 8192
"""Tokens in an evaluation batch; without autograd, more fit than in training."""


@torch.no_grad()
def token_losses(
    model: GPT,
    windows: EvalWindows,
    numbers: np.ndarray,
    stopping: Callable[[], bool] = lambda: False,
) -> np.ndarray:
    """Return the loss of every scored token of these windows, in order, in nats and fp32.

    Losses stay on the device until the last batch; the host reads them once.

    Args:
        numbers: Window numbers, at least one.
        stopping: Called after each batch; if it returns True, the other windows are skipped.
    """
    losses, scored = [], []
    batch_size = max(BATCH_TOKENS // windows.length, 1)
    with evaluation_mode(model):
        for part in np.split(numbers, range(batch_size, len(numbers), batch_size)):
            tokens, targets = windows.batch(part)
            losses.append(model.token_losses(tokens, targets).flatten())
            scored.append((targets != IGNORED).flatten())
            if stopping():
                break
    both = torch.stack([torch.cat(losses), torch.cat(scored).float()]).cpu()
    return both[0][both[1] == 1].numpy()


@torch.no_grad()
def logit_std(model: GPT, tokens: torch.Tensor) -> list[float]:
    """Return the standard deviation of each layer's attention scores, the mean over its heads.

    Layers stay on the device until all are done; the host reads them once.

    Args:
        tokens: (B, T).
    """
    with evaluation_mode(model):
        layers = [head_logit_std(scores).mean() for scores in model.attention_scores(tokens)]
    return torch.stack(layers).tolist()


def head_logit_std(scores: torch.Tensor) -> torch.Tensor:
    """Return the standard deviation (H,) of scores (B, H, T, T), over keys that queries see."""
    length = scores.shape[-1]
    queries, keys = torch.tril_indices(length, length, device=scores.device)
    return torch.stack([head[:, queries, keys].std() for head in scores.unbind(1)])


def mean_loss(losses: np.ndarray) -> float:
    """Return the mean in nats per token, summed in double precision."""
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
    document = np.arange(len(losses)) // block if eot is None else np.cumsum(tokens[:-1] == eot)
    counts = np.bincount(document)
    sums = np.bincount(document, weights=losses.astype(np.float64))
    return {"nats": sums[counts > 0], "tokens": counts[counts > 0]}
