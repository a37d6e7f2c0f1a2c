"""Dropout: its random stream, and masks that are cheap to draw on a CPU.

On a GPU and under torch.compile torch's own dropout is fast and is used.
"""

import contextlib
import math
from collections.abc import Iterator

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from oelm_lib.seeds import named_seed

LEVELS = 2**16
"""16 random bits decide on an element, so p is rounded to a multiple of 1 / 65536."""


def seed_dropout(seed: int, place: str = "") -> None:
    """Seed torch's default generator, which is reserved for dropout, from the stream "dropout".

    A checkpoint saves the generator's state (training/state.py).

    Args:
        seed: The run's seed.
        place: Process and step, where several processes share a run: " of rank 1 at step 7".
    """
    torch.manual_seed(named_seed(seed, f"dropout{place}"))


@contextlib.contextmanager
def evaluation_mode(model: nn.Module) -> Iterator[None]:
    """Turn dropout off for the block, so that its random stream does not move."""
    was_training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(was_training)


def dropout(x: Float[Tensor, "..."], p: float, training: bool) -> Float[Tensor, "..."]:
    """Zero each element with probability p and scale the others by 1 / (1 - p), as F.dropout."""
    if not training or not p:
        return x
    if not is_eager_cpu(x):
        return F.dropout(x, p)
    return torch.where(keep_mask(x.shape, p), x * keep_scale(p), 0.0)


def is_eager_cpu(x: Tensor) -> bool:
    """Return whether x is fp32 on a CPU and not compiled, where torch's own operations are slow."""
    return x.device.type == "cpu" and x.dtype == torch.float32 and not torch.compiler.is_compiling()


def keep_mask(shape: torch.Size, p: float) -> Bool[Tensor, "..."]:
    """Draw from torch's default generator which elements stay.

    torch's own dropout draws a float per element, in several passes, and takes six times as long.
    """
    count = math.prod(shape)
    words = torch.empty(-(-count // 4), dtype=torch.int64).random_(-(2**63), None)
    return (words.view(torch.int16)[:count] >= round(p * LEVELS) - LEVELS // 2).view(shape)


def keep_scale(p: float) -> float:
    """Return the factor of a kept element: 1 over the probability with which it is kept."""
    return LEVELS / (LEVELS - round(p * LEVELS))
