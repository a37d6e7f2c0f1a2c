"""The end of a confirmation run: its last weights on the test split, once."""

import numpy as np
import torch

from oelm_lib.data.batches import EvalWindows
from oelm_lib.data.corpus import open_test
from oelm_lib.errors import UserError
from oelm_lib.files import replacing, write_json
from oelm_lib.runs.reading import folder, read_summary
from oelm_lib.training.evaluation import document_losses, mean_loss, token_losses
from oelm_lib.training.precision import resolve_device
from oelm_lib.training.trained import open_trained


def confirm(run) -> float:
    """Score a finished run on the test split; returns nats per token, written into its summary and documents.npz.

    Raises:
        UserError: The corpus is another one than the run's or has no test split, or the last weights are gone.
    """
    path, summary = folder(run), read_summary(run)
    if summary["final_test_loss"] is not None:
        return summary["final_test_loss"]
    trained = open_trained(path)
    cfg, corpus = trained.config, trained.corpus
    if trained.step != summary["steps"]:
        raise UserError(
            f"{path}: no checkpoint of the last step, {summary['steps']:,}; train it again (--fresh)"
        )
    device = resolve_device(cfg.machine.device)
    if cfg.machine.threads:
        torch.set_num_threads(cfg.machine.threads)
    tokens = open_test(corpus)
    windows = EvalWindows(tokens, cfg.model.max_seq_len, device, corpus.recall)
    losses = token_losses(trained.model.to(device), windows, np.arange(windows.windows))
    block = corpus.block_tokens(cfg.model.max_seq_len)
    scored = document_losses(losses, tokens, corpus.eot, block)
    with np.load(path / "documents.npz") as documents:
        documents = dict(documents) | {f"test_{key}": value for key, value in scored.items()}
    with replacing(path / "documents.npz") as temporary, open(temporary, "wb") as file:
        np.savez(file, **documents)
    loss = mean_loss(losses)
    write_json(path / "summary.json", summary | {"final_test_loss": loss})
    return loss
