"""Token file -> batches; the only module of `data` that needs torch."""

import numpy as np
import torch
from torch import Tensor

from oelm_lib.seeds import named_generator

IGNORED = -100
"""Target that is not scored."""
RESIDENT_SHARE = 0.25
"""Share of a GPU's free memory that the training tokens may take."""


class Batches:
    """Batches of windows as a pure function of the step: nothing to save, nothing to restore.

    Window i holds the inputs i*T .. i*T+T-1 and, shifted by one, their targets. Windows are permuted anew each
    epoch by (seed, epoch); the last partial batch of an epoch is dropped.

    Args:
        tokens: Token ids of the train split.
        length: T.
        batch_size: B.
        seed: Names the order of every epoch.
        device: Where batches go.
        recall: Corpus.recall; then only the tokens behind queries are scored.
    """

    def __init__(
        self,
        tokens: np.ndarray,
        length: int,
        batch_size: int,
        seed: int,
        device: torch.device,
        recall: tuple[int, int] | None = None,
    ):
        self.recall = recall
        self.tokens, self.length, self.batch_size, self.seed, self.device = (
            tokens,
            length,
            batch_size,
            seed,
            device,
        )
        self.windows = (len(tokens) - 1) // length
        self.epoch_steps = self.windows // batch_size
        self._order: tuple[int, np.ndarray] | None = None
        self._resident = self._to_device() if device.type == "cuda" else None

    def __call__(self, step: int) -> tuple[Tensor, Tensor]:
        """Tokens and targets, each (B, T) int64, of step 0, 1, ..."""
        starts = self.window_numbers(step) * self.length
        index = starts[:, None] + np.arange(self.length + 1)  # (B, T+1)
        if self._resident is not None:
            windows = self._resident[
                torch.from_numpy(index).to(self.device, non_blocking=True)
            ].long()
        else:
            windows = to_device(self.tokens[index], self.device)
        return windows[:, :-1], scored(windows, self.recall)

    def window_numbers(self, step: int) -> np.ndarray:
        """Which windows (B,) step `step` sees."""
        epoch, position = divmod(step, self.epoch_steps)
        if self._order is None or self._order[0] != epoch:
            generator = named_generator(self.seed, f"data order of epoch {epoch}")
            self._order = epoch, torch.randperm(self.windows, generator=generator).numpy()
        return self._order[1][position * self.batch_size : (position + 1) * self.batch_size]

    def _to_device(self) -> Tensor | None:
        free, _ = torch.cuda.mem_get_info(self.device)
        if 4 * len(self.tokens) > RESIDENT_SHARE * free:
            return None
        return torch.from_numpy(self.tokens.astype(np.int32)).to(self.device)


class EvalWindows:
    """Fixed windows over a split, in order: all of them, or evenly spread ones.

    Args:
        tokens: Token ids of the split; every token but the first is scored once in the whole split.
        length: T.
        device: Where batches go.
        recall: Corpus.recall; then only the tokens behind queries are scored.
    """

    def __init__(
        self,
        tokens: np.ndarray,
        length: int,
        device: torch.device,
        recall: tuple[int, int] | None = None,
    ):
        self.recall = recall
        self.tokens, self.length, self.device = tokens, length, device
        self.windows = -(-(len(tokens) - 1) // length)

    def subset(self, eval_tokens: int) -> np.ndarray:
        """Numbers of evenly spread windows with about `eval_tokens` tokens, at least one; all where that is less."""
        count = min(max(round(eval_tokens / self.length), 1), self.windows)
        return np.linspace(0, self.windows - 1, count).round().astype(np.int64)

    def batch(self, numbers: np.ndarray) -> tuple[Tensor, Tensor]:
        """Tokens and targets (b, T) int64 of these windows; past the end targets are -100."""
        index = numbers[:, None] * self.length + np.arange(self.length + 1)
        inside = index < len(self.tokens)
        windows = to_device(self.tokens[np.where(inside, index, 0)], self.device)
        targets = scored(windows, self.recall)
        return windows[:, :-1], targets.masked_fill(
            ~torch.from_numpy(inside[:, 1:]).to(self.device), IGNORED
        )


def scored(windows: Tensor, recall: tuple[int, int] | None) -> Tensor:
    """Targets (B, T) of windows (B, T + 1); of associative recall, -100 but behind queries."""
    if recall is None:
        return windows[:, 1:]
    end_of_keys, first = recall
    queries = (windows[:, :-1] > 0) & (windows[:, :-1] < end_of_keys)
    queries[:, :first] = False
    return windows[:, 1:].masked_fill(~queries, IGNORED)


def to_device(ids: np.ndarray, device: torch.device) -> Tensor:
    """Token ids as int64 on the device; the copy to a GPU is pinned and asynchronous."""
    host = torch.from_numpy(np.ascontiguousarray(ids, dtype=np.int64))
    return host.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else host
