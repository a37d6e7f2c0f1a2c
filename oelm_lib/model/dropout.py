"""Dropout that is cheap on a CPU; on a GPU and under torch.compile torch's own is fast."""

import math

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

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
