"""Error over documents of a loss difference, from the runs' documents.npz."""

import math
from pathlib import Path

import numpy as np
import pandas as pd

from oelm_lib import stats
from oelm_lib.errors import UserError
from oelm_lib.runs.documents import read_documents


def document_error(arm: pd.DataFrame, base: pd.DataFrame) -> float:
    """Return the bootstrap standard error over documents of the difference averaged over seeds.

    Args:
        arm, base: Runs of the same seeds in one order (Pair.shared).

    Returns:
        Nats per token; nan where a run has no readable documents, or they are not the same.
    """
    differences, tokens = [], None
    for first, second in zip(arm["path"], base["path"], strict=True):
        if not (isinstance(first, Path) and isinstance(second, Path)):
            return math.nan  # a recorded run has no folder
        try:
            one, two = read_documents(first), read_documents(second)
        except UserError:
            return math.nan
        if "tokens" not in one:
            return math.nan
        tokens = one["tokens"]
        if not np.array_equal(tokens, two.get("tokens")):
            return math.nan
        differences.append(one["nats"] - two["nats"])
    if tokens is None or not tokens.sum() > 0:
        return math.nan
    return stats.bootstrap_documents(np.mean(differences, axis=0), tokens)
