"""Dropout that is cheap on a CPU; on a GPU and under torch.compile torch's own is fast."""

import math

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

QUERY_BLOCK = 128
"""Queries whose probabilities are worked on at once: they fit a CPU's cache, and later keys are never touched."""
LEVELS = 2**16
"""A kept element is decided by 16 random bits, so p acts as the nearest multiple of 1 / 65536."""


def dropout(x: Float[Tensor, "..."], p: float, training: bool) -> Float[Tensor, "..."]:
    """Zero each element with probability p and scale the others by 1 / (1 - p), as F.dropout does."""
    if not training or not p:
        return x
    if not draws_bits(x):
        return F.dropout(x, p)
    return torch.where(keep_mask(x.shape, p), x * keep_scale(p), 0.0)


def draws_bits(x: Tensor) -> bool:
    """Whether dropout of x goes the cheap way of this module."""
    return x.device.type == "cpu" and x.dtype == torch.float32 and not torch.compiler.is_compiling()


def keep_mask(shape: torch.Size, p: float) -> Bool[Tensor, "..."]:
    """Draw which elements stay from torch's default generator.

    torch's own draw takes a float an element and several passes: six times as long.
    """
    count = math.prod(shape)
    words = torch.empty(-(-count // 4), dtype=torch.int64).random_(-(2**63), None)
    return (words.view(torch.int16)[:count] >= round(p * LEVELS) - LEVELS // 2).view(shape)


def keep_scale(p: float) -> float:
    """What a kept element is multiplied by: the inverse of the probability with which it is kept."""
    return LEVELS / (LEVELS - round(p * LEVELS))


class DroppedAttention(torch.autograd.Function):
    """Causal attention with dropout of the probabilities, for a CPU: torch's fast kernel there knows no dropout.

    Exact, not approximate: for each sequence and block of queries, softmax over the keys up to the block's end.
    """

    @staticmethod
    def forward(ctx, q: Tensor, k: Tensor, v: Tensor, p: float) -> Tensor:
        """All (B, H, T, K); scores are scaled by 1 / sqrt(K)."""
        ctx.scale, ctx.keep_scale = q.shape[-1] ** -0.5, keep_scale(p)
        y, saved = torch.empty_like(q), []
        for b, start, end in _blocks(q):
            future = torch.full((end - start, end), -math.inf).triu_(start + 1)
            scores = torch.baddbmm(
                future, q[b, :, start:end], k[b, :, :end].mT, alpha=ctx.scale
            )  # (H, Q, end)
            weights, keep = scores.softmax(-1), keep_mask(scores.shape, p)
            y[b, :, start:end] = torch.where(keep, weights, 0.0) @ v[b, :, :end]
            saved += [weights, keep]
        ctx.save_for_backward(q, k, v, *saved)
        return y.mul_(ctx.keep_scale)

    @staticmethod
    def backward(ctx, grad: Tensor) -> tuple[Tensor | None, ...]:
        q, k, v, *saved = ctx.saved_tensors
        grad = grad * ctx.keep_scale
        dq, dk, dv = torch.empty_like(q), torch.zeros_like(k), torch.zeros_like(v)
        for (b, start, end), weights, keep in zip(_blocks(q), saved[::2], saved[1::2], strict=True):
            dy = grad[b, :, start:end]  # (H, Q, K)
            dv[b, :, :end] += torch.where(keep, weights, 0.0).mT @ dy
            d_weights = torch.where(keep, dy @ v[b, :, :end].mT, 0.0)
            d_scores = torch._softmax_backward_data(d_weights, weights, -1, weights.dtype).mul_(
                ctx.scale
            )
            dq[b, :, start:end] = d_scores @ k[b, :, :end]
            dk[b, :, :end] += d_scores.mT @ q[b, :, start:end]
        return dq, dk, dv, None


def _blocks(q: Tensor) -> list[tuple[int, int, int]]:
    """(sequence, first query, one past the last) of each block."""
    starts = range(0, q.shape[2], QUERY_BLOCK)
    return [(b, s, min(s + QUERY_BLOCK, q.shape[2])) for b in range(q.shape[0]) for s in starts]
