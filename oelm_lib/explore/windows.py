"""Token sequences that runs are probed on: validation windows and repeated random tokens."""

import functools
import math

import numpy as np
import torch
from torch import Tensor

from oelm_lib.data.batches import IGNORED, EvalWindows, scored_targets
from oelm_lib.explore import measures
from oelm_lib.training.trained import Trained

CACHED_RUNS = 32
"""Runs whose probes are kept in memory; a page shows fewer."""
LOSS_TOKENS = 32768
"""Tokens of the validation split (evenly spread windows) over which losses are averaged."""
SEED, SEQUENCES = 0, 32
"""Seed and number of the random sequences, the same for all runs."""


def validation_windows(run: Trained, tokens: int) -> tuple[Tensor, Tensor]:
    """Return whole windows of the validation split, evenly spread: tokens and targets (N, T)."""
    length = run.config.model.max_seq_len
    windows = EvalWindows(run.corpus.tokens("val"), length, torch.device("cpu"))
    inputs, targets = windows.batch(windows.subset(tokens))
    whole = (targets != IGNORED).all(1)
    return inputs[whole], targets[whole]


def repeated_sequences(run: Trained) -> tuple[Tensor, int]:
    """Return measures.repeated_tokens (SEQUENCES, 1 + 2 * period) for a run, and the period.

    The tokens are drawn from those of the validation split, so that none is an id that the corpus
    never uses.
    """
    period = (run.config.model.max_seq_len - 1) // 2
    seen, eot = np.unique(run.corpus.tokens("val")), run.corpus.eot
    first, ids = (seen[0], seen[1:]) if eot is None else (eot, seen[seen != eot])
    tokens = measures.repeated_tokens(
        np.random.default_rng(SEED), ids.astype(np.int64), int(first), period, SEQUENCES
    )
    return torch.from_numpy(tokens), period


@functools.lru_cache(maxsize=CACHED_RUNS)
@torch.no_grad()
def window_losses(run: Trained) -> tuple[np.ndarray, np.ndarray]:
    """Return tokens (N, T + 1) of validation windows, and the nats (N, T) of all but the first.

    Of associative recall only the answers are scored; the others are nan.
    """
    inputs, targets = validation_windows(run, LOSS_TOKENS)
    windows = torch.cat([inputs, targets[:, -1:]], 1)
    scored = scored_targets(windows, run.corpus.recall)
    parts = zip(inputs.split(64), scored.split(64), strict=True)
    losses = torch.cat([run.model.token_losses(*part) for part in parts])
    return windows.numpy(), losses.masked_fill(scored == IGNORED, math.nan).numpy()
