"""Multi-query associative recall, a task with exact answers: Zoology, Arora et al. 2023, arXiv:2312.04927.

An example is key value key value ..., then each key once more, placed by a power law among blanks (0), with its value
behind it. Keys are ids below half the vocabulary, values those above. Only what follows a queried key is scored.
"""

import numpy as np
from jaxtyping import UInt16

from oelm_lib.data.spec import Recall
from oelm_lib.seeds import named_seed


def recall_examples(recall: Recall, split: str, vocab_size: int) -> UInt16[np.ndarray, "N T"]:
    """Draw the examples of a split; the same on every machine."""
    rng = np.random.default_rng(named_seed(0, f"mqar/{split}"))
    half, context = vocab_size // 2, 2 * recall.pairs
    places = np.arange(1, (recall.length - context) // 2 + 1)
    share = places ** (recall.power - 1.0)
    tokens = np.zeros((recall.examples[split], recall.length), np.uint16)
    for row in tokens:
        keys = 1 + rng.choice(half - 1, recall.pairs, replace=False)
        values = half + rng.choice(vocab_size - half, recall.pairs, replace=False)
        slots = context + 2 * rng.choice(
            len(places), recall.pairs, replace=False, p=share / share.sum()
        )
        row[0:context:2], row[1:context:2] = keys, values
        row[slots], row[slots + 1] = keys, values
    return tokens
