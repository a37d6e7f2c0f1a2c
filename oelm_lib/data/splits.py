"""Split rules: which documents of a source become train, val and test."""

import numpy as np

from oelm_lib.data.encode import Encoded
from oelm_lib.data.spec import CorpusSpec
from oelm_lib.data.tokenizer import Tokenizer

Chosen = tuple[Encoded, np.ndarray]
"""The encoded documents of a source split, and the numbers of those chosen, in order."""


def plan_splits(
    spec: CorpusSpec, encoded: dict[str, Encoded], encoder: Tokenizer, eot: int | None
) -> dict[str, Chosen]:
    """Choose the documents of each split by the corpus file's rules.

    Args:
        spec: Keys `validation` and `test` are the rules.
        encoded: Split of the source -> its documents; `tail` cuts one of train's in two.
        encoder: Decodes the document that `tail` cuts.
        eot: Id of end-of-text; None: there is none.

    Returns:
        train, val and, where there is one, test.
    """
    train, test = encoded["train"], encoded.get("test")
    val, count = encoded.get("validation", train), len(train.tokens)
    if spec.validation == "tail":
        cut = int((1 - spec.validation_fraction) * sum(train.tokens))
        first = train.cut(cut, encoder, eot)
        kept, held_out = np.arange(first), np.arange(first, len(train.tokens))
    elif spec.validation == "permutation":
        kept, held_out = permuted_split(spec, count)
    else:
        kept, held_out = np.arange(count), np.arange(len(val.tokens))
    plan = {"train": (train, kept), "val": (val, held_out)}
    if spec.test == "halves":
        odd = np.array(val.odd, dtype=bool)[held_out]
        plan |= {"val": (val, held_out[~odd]), "test": (val, held_out[odd])}
    elif test:
        plan["test"] = (test, np.arange(len(test.tokens)))
    return plan


def permuted_split(spec: CorpusSpec, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the train and validation documents of `datasets`' train_test_split, in its order.

    Args:
        spec: Keys `validation_fraction` and `validation_seed`.
        count: Number of documents in the source's train split.
    """
    order = np.random.default_rng(spec.validation_seed).permutation(count)
    held_out = int(np.ceil(count * spec.validation_fraction))
    return order[held_out:], order[:held_out]
