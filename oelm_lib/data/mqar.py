"""Multi-query associative recall (Zoology, Arora et al. 2023, arXiv:2312.04927).

An example is key value key value ..., then each key once more among blanks (id 0), each followed
by its value; the places of these queries follow a power law. Keys are ids below half the
vocabulary, values the ids from there on. Only the token after a queried key is scored.
"""

from typing import Annotated

import numpy as np
from jaxtyping import UInt16
from pydantic import Field, model_validator

from oelm_lib.config import Count, Real, Section, SplitCounts
from oelm_lib.seeds import named_seed


class Recall(Section):
    examples: SplitCounts
    """Number of examples in each split."""
    length: Count
    """T, tokens of an example; the model's max_seq_len."""
    pairs: Count
    """Number of keys with their values; each key is asked for once."""
    power: Annotated[Real, Field(gt=0, le=10)]
    """Exponent a of the power law a x^(a-1) of the queries' places."""

    @model_validator(mode="after")
    def _check(self):
        if self.length % 2 or 4 * self.pairs > self.length:
            raise ValueError(
                f"length = {self.length} should be even and at least 4 x pairs = {4 * self.pairs}"
            )
        return self


def recall_examples(recall: Recall, split: str, vocab_size: int) -> UInt16[np.ndarray, "N T"]:
    """Draw the examples of a split; the same on every machine.

    Args:
        recall: Sizes, from the corpus file.
        split: train, validation or test.
        vocab_size: V, number of ids.
    """
    rng = np.random.default_rng(named_seed(0, f"mqar/{split}"))
    half, context = vocab_size // 2, 2 * recall.pairs
    places = np.arange(1, (recall.length - context) // 2 + 1)
    weights = places ** (recall.power - 1.0)
    tokens = np.zeros((getattr(recall.examples, split), recall.length), np.uint16)
    for row in tokens:
        keys = 1 + rng.choice(half - 1, recall.pairs, replace=False)
        values = half + rng.choice(vocab_size - half, recall.pairs, replace=False)
        slots = context + 2 * rng.choice(
            len(places), recall.pairs, replace=False, p=weights / weights.sum()
        )
        row[0:context:2], row[1:context:2] = keys, values
        row[slots], row[slots + 1] = keys, values
    return tokens
