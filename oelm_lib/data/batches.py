"""Token file -> batches of tokens and targets on a device."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from oelm_lib.data.corpus import RecallExamples, epoch_steps
from oelm_lib.seeds import named_generator

IGNORED = -100
"""Target that is not scored."""
RESIDENT_SHARE = 0.25
"""Share of a GPU's free memory that the training tokens may take."""


class Batches:
    """Batches of windows as a pure function of the step: nothing to save, nothing to restore.

    Window i holds the inputs i*T .. i*T+T-1 and, shifted by one, their targets; windows do not
    overlap. They are permuted in each epoch by (seed, epoch), and the last partial batch of an
    epoch is dropped.

    Tokens that fit on a GPU are kept there. A step then neither reads from nor waits for the
    host: the order of an epoch is copied to the GPU at its first step, from pinned memory.

    Args:
        tokens: Token ids of the train split.
        length: T.
        batch_size: B.
        seed: Decides the order of every epoch.
        device: Where batches go.
        recall: Corpus.recall; then only the tokens after queries are scored.
        resident: Whether to keep the tokens on the device; None: on a GPU that has room.
    """

    def __init__(
        self,
        tokens: np.ndarray,
        length: int,
        batch_size: int,
        seed: int,
        device: torch.device,
        recall: RecallExamples | None = None,
        resident: bool | None = None,
    ):
        self.tokens, self.length, self.batch_size = tokens, length, batch_size
        self.seed, self.device, self.recall = seed, device, recall
        self.windows = (len(tokens) - 1) // length
        self.epoch_steps = epoch_steps(len(tokens), length, batch_size)
        self._order: tuple[int, np.ndarray] | None = None
        self._device_order: tuple[int, Tensor] | None = None
        self._resident: Tensor | None = None
        if self._fits() if resident is None else resident:
            self._resident = torch.from_numpy(self.tokens.astype(np.int32)).to(device)
            self._offsets = torch.arange(length + 1, device=device)

    def __call__(self, step: int) -> tuple[Tensor, Tensor]:
        """Return tokens and targets, each (B, T) int64, of step 0, 1, ..."""
        if self._resident is None:
            starts = self.window_numbers(step) * self.length
            index = starts[:, None] + np.arange(self.length + 1)  # (B, T+1)
            windows = to_device(self.tokens[index].astype(np.int64), self.device)
        else:
            windows = self._resident_windows(step)
        return windows[:, :-1], scored_targets(windows, self.recall)

    def window_numbers(self, step: int) -> np.ndarray:
        """Return the numbers (B,) of the windows of step 0, 1, ..."""
        epoch, position = divmod(step, self.epoch_steps)
        return self._epoch_order(epoch)[self._rows(position)]

    def _epoch_order(self, epoch: int) -> np.ndarray:
        """Return the order (windows,) of an epoch."""
        if self._order is None or self._order[0] != epoch:
            generator = named_generator(self.seed, f"data order of epoch {epoch}")
            self._order = epoch, torch.randperm(self.windows, generator=generator).numpy()
        return self._order[1]

    def _rows(self, position: int) -> slice:
        """Return the places in an epoch's order of its batch number `position`."""
        return slice(position * self.batch_size, (position + 1) * self.batch_size)

    def _resident_windows(self, step: int) -> Tensor:
        """Return windows (B, T+1) int64 of a step, by operations on the device alone."""
        epoch, position = divmod(step, self.epoch_steps)
        if self._device_order is None or self._device_order[0] != epoch:
            self._device_order = epoch, to_device(self._epoch_order(epoch), self.device)
        starts = self._device_order[1][self._rows(position)] * self.length
        return self._resident[starts[:, None] + self._offsets].long()

    def _fits(self) -> bool:
        """Whether the device is a GPU with room for the tokens as int32."""
        if self.device.type != "cuda":
            return False
        free, _ = torch.cuda.mem_get_info(self.device)
        return 4 * len(self.tokens) <= RESIDENT_SHARE * free


@dataclass(eq=False)
class EvalWindows:
    """Fixed windows over a split, in order: all of them, or evenly spread ones.

    Args:
        tokens: Token ids of the split; together the windows score each token once, except the
            first.
        length: T.
        device: Where batches go.
        recall: Corpus.recall; then only the tokens after queries are scored.
    """

    tokens: np.ndarray
    length: int
    device: torch.device
    recall: RecallExamples | None = None

    @property
    def count(self) -> int:
        """Number of windows."""
        return -(-(len(self.tokens) - 1) // self.length)

    def subset(self, eval_tokens: int) -> np.ndarray:
        """Return the numbers of evenly spread windows with about `eval_tokens` tokens.

        At least one; all windows where they have fewer tokens.
        """
        chosen = min(max(round(eval_tokens / self.length), 1), self.count)
        return np.linspace(0, self.count - 1, chosen).round().astype(np.int64)

    def batch(self, numbers: np.ndarray) -> tuple[Tensor, Tensor]:
        """Return tokens and targets (b, T) int64 of windows; past the end targets are -100."""
        index = numbers[:, None] * self.length + np.arange(self.length + 1)
        inside = index < len(self.tokens)
        ids = self.tokens[np.where(inside, index, 0)].astype(np.int64)
        windows = to_device(ids, self.device)
        targets = scored_targets(windows, self.recall)
        if not inside.all():
            targets = targets.masked_fill(to_device(~inside[:, 1:], self.device), IGNORED)
        return windows[:, :-1], targets


def scored_targets(windows: Tensor, recall: RecallExamples | None) -> Tensor:
    """Return the targets (B, T) of windows (B, T+1); with `recall`, -100 except after queries."""
    if recall is None:
        return windows[:, 1:]
    queries = (windows[:, :-1] > 0) & (windows[:, :-1] < recall.end_of_keys)
    queries[:, : recall.first_query] = False
    return windows[:, 1:].masked_fill(~queries, IGNORED)


def to_device(values: np.ndarray, device: torch.device) -> Tensor:
    """Copy an array to a device; to a GPU from pinned memory, without waiting for it."""
    host = torch.from_numpy(np.ascontiguousarray(values))
    return host.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else host
