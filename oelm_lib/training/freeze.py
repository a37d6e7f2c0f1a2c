"""Proof that frozen tensors stay as they are: their SHA-256 at both ends of each interval."""

import hashlib
from typing import Any

from torch import nn


class FreezeProof:
    """The intervals of steps over which the same tensors are frozen.

    Attributes:
        intervals: {from_step, tensors, sha256_start}, and of those that have ended to_step and
            sha256_end.
    """

    def __init__(self, model: nn.Module):
        self._model = model
        self.intervals: list[dict[str, Any]] = []

    def start(self, step: int) -> None:
        """Begin an interval at `step`."""
        digest, tensors = frozen_digest(self._model)
        self.intervals.append({"from_step": step, "sha256_start": digest, "tensors": tensors})

    def unchanged(self) -> bool:
        """Whether the frozen tensors still have the digest of the last interval's start."""
        return frozen_digest(self._model)[0] == self.intervals[-1]["sha256_start"]

    def end(self, step: int) -> None:
        """End the last interval at `step`.

        Raises:
            RuntimeError: A frozen tensor has changed.
        """
        last = self.intervals[-1]
        digest, _ = frozen_digest(self._model)
        if digest != last["sha256_start"]:
            raise RuntimeError(
                f"frozen tensors changed between steps {last['from_step']} and {step}:"
                " this is a bug"
            )
        last.update(to_step=step, sha256_end=digest)


def frozen_digest(model: nn.Module) -> tuple[str, int]:
    """Return the SHA-256 over names and bytes of all frozen tensors, and their number."""
    digest, count = hashlib.sha256(), 0
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            digest.update(name.encode())
            digest.update(parameter.detach().cpu().numpy().tobytes())
            count += 1
    return digest.hexdigest(), count
