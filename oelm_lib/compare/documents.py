"""Error over documents of a loss difference, from the runs' documents.npz."""

import math
import zipfile

import numpy as np
import pandas as pd

from oelm_lib import stats

UNREADABLE = (OSError, KeyError, ValueError, TypeError, EOFError, zipfile.BadZipFile)


def document_error(arm: pd.DataFrame, base: pd.DataFrame, split: str = "val") -> float:
    """Return the bootstrap standard error over documents of the difference averaged over seeds.

    Args:
        arm, base: Runs of the same seeds in one order (Pair.shared).
        split: val or test.

    Returns:
        Nats per token; nan where a run has no readable documents, or they are not the same.
    """
    prefix = "test_" if split == "test" else ""
    differences, tokens = [], None
    for first, second in zip(arm["path"], base["path"], strict=True):
        try:
            with np.load(first / "documents.npz") as one, np.load(second / "documents.npz") as two:
                tokens = one[f"{prefix}tokens"]
                if not np.array_equal(tokens, two[f"{prefix}tokens"]):
                    return math.nan
                differences.append(one[f"{prefix}nats"] - two[f"{prefix}nats"])
        except UNREADABLE:
            return math.nan
    if tokens is None or not tokens.sum() > 0:
        return math.nan
    return stats.bootstrap_documents(np.mean(differences, axis=0), tokens)
