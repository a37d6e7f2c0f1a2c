"""Scoring of the test split: once, at the end of a confirmation run, with its last weights."""

import math
from pathlib import Path

import numpy as np

from oelm_lib.data import EvalWindows, open_test
from oelm_lib.errors import UserError
from oelm_lib.files import write_json
from oelm_lib.runs.documents import read_documents, write_documents
from oelm_lib.runs.folder import Run
from oelm_lib.runs.reading import is_test_scored, read_summary
from oelm_lib.training.device import prepare_device
from oelm_lib.training.evaluation import document_losses, mean_loss, token_losses
from oelm_lib.training.trained import Trained, open_trained


def score_test_split(run: Run | Path) -> float:
    """Score the last weights of a finished run on the test split, in nats per token.

    The loss goes into summary.json, the losses of the documents into documents.npz. A run that has
    been scored is not scored again. A loss that is not finite is stored as null, and returned as
    nan from then on.

    Raises:
        UserError: The run is not done, its corpus has changed or has no test split, its last
            weights are gone, or another process writes it.
    """
    path, summary = Path(run), read_summary(run)
    if summary is None:
        raise UserError(f"{path}: is not done, so it is not scored on the test split; train it")
    if is_test_scored(summary):
        loss = summary["final_test_loss"]
        return math.nan if loss is None else loss
    trained = open_trained(path)
    if trained.step != summary["steps"]:
        raise UserError(
            f"{path}: has no checkpoint of the last step, {summary['steps']:,}; train the run again"
            " (--fresh)"
        )
    trained.lock.acquire()
    try:
        loss = _score(trained)
        scored = summary | {"final_test_loss": loss, "test_scored": True}
        write_json(path / "summary.json", scored, trained.lock.check)
    finally:
        trained.lock.release()
    return loss


def _score(trained: Trained) -> float:
    """Score the test split and add its documents to documents.npz."""
    cfg, corpus = trained.config, trained.corpus
    documents = read_documents(trained.path)  # first: a damaged file is reported before the scoring
    length = cfg.model.max_seq_len
    device = prepare_device(cfg.machine)
    tokens = open_test(corpus)
    windows = EvalWindows(tokens, length, device, corpus.recall)
    losses = token_losses(trained.model.to(device), windows, np.arange(windows.count))
    scores = document_losses(losses, tokens, corpus.eot, corpus.block_tokens(length))
    documents |= {f"test_{key}": value for key, value in scores.items()}
    write_documents(trained.path, documents, trained.lock.check)
    return mean_loss(losses)
