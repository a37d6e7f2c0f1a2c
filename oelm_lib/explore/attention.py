"""Attention of trained models, recomputed from what scaled_dot_product_attention gets."""

import functools
import itertools
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from oelm_lib.explore import measures
from oelm_lib.explore.windows import CACHED_RUNS, repeated_sequences, validation_windows
from oelm_lib.model.gpt import GPT
from oelm_lib.training.evaluation import head_logit_std
from oelm_lib.training.trained import Trained

MAP_TOKENS = 2048
"""Tokens of the validation split over which attention is averaged."""
ROLES = {
    "previous_token": "previous token",
    "duplicate_token": "duplicate token",
    "induction": "induction",
}
"""Columns of head_table that say what a head is for."""
STRONG = 0.3
"""A head with a larger share of its attention in a role has that role."""


@torch.no_grad()
def attention_maps(model: GPT, tokens: Tensor) -> np.ndarray:
    """Return the share that each query gives to each key, (L, B, H, T, T)."""
    return np.stack([scores.softmax(-1).numpy() for scores in model.attention_scores(tokens)])


@torch.no_grad()
def layer_maps(model: GPT, tokens: Tensor, layer: int) -> np.ndarray:
    """Return attention_maps of one layer, (B, H, T, T); the layers above are not computed."""
    scores = next(itertools.islice(model.attention_scores(tokens), layer, None))
    return scores.softmax(-1).numpy()


@functools.lru_cache(maxsize=CACHED_RUNS)
@torch.no_grad()
def head_table(run: Trained) -> pd.DataFrame:
    """Return one row per head: roles on repeated random tokens, attention on text, its spectrum.

    `copying_in_text` is the share that goes to keys which hold the next token, where it stood
    earlier in the window. A new measure of heads is one line here.
    """
    repeated, period = repeated_sequences(run)
    inputs, targets = validation_windows(run, MAP_TOKENS)
    text = torch.cat([inputs, targets[:, -1:]], 1).numpy()
    on_copies, on_text = map(run.model.attention_scores, (repeated, inputs))
    parts = zip(on_copies, on_text, _qk_weights(run), strict=True)  # one layer at a time
    layers = []
    for layer, (copy_scores, scores, (query, key, gain)) in enumerate(parts):
        copied = copy_scores.softmax(-1).mean(0).numpy()  # (H, T, T)
        maps = scores.softmax(-1).numpy()  # (B, H, T, T)
        columns = {  # (H,) each
            "previous_token": measures.previous_token_score(copied),
            "duplicate_token": measures.duplicate_token_score(copied, period),
            "induction": measures.induction_score(copied, period),
            "copying_in_text": measures.copying_mass(maps, text),
            "entropy": measures.normalised_entropy(maps).mean(0),
            "concentration": measures.concentration(maps).mean(0),
            "first_token": measures.first_token_mass(maps).mean(0),
            "local": measures.local_mass(maps).mean(0),
            "logit_std": head_logit_std(scores).numpy(),
            "effective_rank": measures.effective_rank(measures.qk_spectrum(query, key, gain)),
            "q_orthogonality_error": measures.orthogonality_error(query),
        }
        heads = pd.DataFrame(columns, dtype=float)
        layers.append(heads.assign(layer=layer, head=heads.index))
    return pd.concat(layers, ignore_index=True)


def spectrum(run: Trained) -> np.ndarray:
    """Return singular values (L, H, K) of each head's Q/K form with the LayerNorm's gain."""
    return np.stack(
        [measures.qk_spectrum(query, key, gain) for query, key, gain in _qk_weights(run)]
    )


def _qk_weights(run: Trained) -> list[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Return of each layer W_q and W_k (H, K, D) and the gain (D) of the LayerNorm before them.

    Both weights include the additions that fold into them.
    """
    weights: list[Any] = []
    with torch.no_grad():
        for block in run.model.blocks:
            heads = [
                weight.unflatten(0, (block.attention.num_heads, -1)).numpy()
                for weight, _ in block.attention.as_linear()
            ]
            weights.append((*heads, block.ln1.weight.numpy()))
    return weights
