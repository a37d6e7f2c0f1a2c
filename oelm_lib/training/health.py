"""Finite numbers: which steps had a loss or gradient norm that is not finite."""

from typing import NamedTuple

import torch
from torch import Tensor

from oelm_lib.training.precision import Precision

FP16_LIMIT = 30
"""Overflows in a row at which an fp16 run stops; its loss scale has fallen from 65536 to 6e-5."""


class BadStep(NamedTuple):
    """The step at which a run failed; 1 is the first step of the run."""

    step: int
    loss: float
    norm: float


class Health:
    """Count on the device how many of the last steps in a row were not finite.

    A run fails at the first one. Under fp16, where an overflow is the scaler's business, it fails
    after FP16_LIMIT in a row. From then on every step counts as bad, so that its update is skipped
    and the host learns of the failure whenever it reads the numbers.

    Attributes:
        limit: Bad steps in a row at which the run fails.
        numbers: (3,) float64 on the device: the count, and the loss and norm of the last step, or
            of the one at which the run failed.
        steps: Steps watched in the whole run.
    """

    def __init__(self, precision: Precision):
        self.limit = FP16_LIMIT if precision.name == "fp16" else 1
        self.numbers = torch.zeros(3, dtype=torch.float64, device=precision.device)
        self.steps = 0

    def load(self, numbers: Tensor, steps: int) -> None:
        """Continue from a checkpoint after `steps` steps."""
        self.numbers, self.steps = numbers, steps

    def watch(self, loss: Tensor, norm: Tensor) -> Tensor:
        """Count a step before its update; return its norm, NaN if the update is to be skipped."""
        self.steps += 1
        count = self.numbers[0]
        has_failed = count >= self.limit
        is_good = loss.isfinite() & norm.isfinite() & ~has_failed
        count = torch.where(is_good, 0.0, count + 1)
        last = torch.where(has_failed, self.numbers[1:], torch.stack([loss, norm]).double())
        self.numbers = torch.cat([count[None], last])
        return torch.where(is_good, norm, torch.nan)

    def failure(self, numbers: list[float]) -> BadStep | None:
        """Return the step at which the run failed, or None.

        Args:
            numbers: `numbers` as the host has read them.
        """
        count, loss, norm = numbers
        steps_since = int(count) - self.limit
        return BadStep(self.steps - steps_since, loss, norm) if steps_since >= 0 else None
