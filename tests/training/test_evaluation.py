import numpy as np
import pytest
import torch

from oelm_lib.data.batches import EvalWindows
from oelm_lib.training import evaluation
from oelm_lib.training.evaluation import document_losses, logit_std, mean_loss, token_losses

CPU = torch.device("cpu")
LENGTH = 8


@pytest.fixture
def model(model_config):
    """A tiny model in training mode, with dropout."""
    from oelm_lib.model.gpt import GPT

    return GPT(model_config(dropout=0.5))


@pytest.fixture
def tokens(model):
    """77 tokens: nine windows and a part of a tenth."""
    return np.random.default_rng(0).integers(model.cfg.vocab_size, size=77).astype(np.uint16)


def test_every_token_but_the_first_is_scored_once_at_any_batch_size(model, tokens, monkeypatch):
    windows = EvalWindows(tokens, LENGTH, CPU)
    expected = []
    model.eval()
    for start in range(0, 76, LENGTH):
        part = torch.from_numpy(tokens[start : start + LENGTH + 1].astype(np.int64))[None]
        log_probs = model(part[:, :-1])[0].log_softmax(-1)
        expected += (-log_probs[0].gather(1, part[0, 1:, None])[:, 0]).tolist()
    model.train()
    for batch_windows in (1, 3, 100):
        monkeypatch.setattr(evaluation, "BATCH_TOKENS", batch_windows * LENGTH)
        losses = token_losses(model, windows, np.arange(windows.count))
        assert losses.dtype == np.float32
        assert losses.shape == (76,)
        np.testing.assert_allclose(losses, expected, rtol=1e-4)


def test_windows_are_scored_in_the_order_asked_for(model, tokens):
    windows = EvalWindows(tokens, LENGTH, CPU)
    some = token_losses(model, windows, np.array([4, 2]))
    every = token_losses(model, windows, np.arange(windows.count))
    np.testing.assert_allclose(some, np.r_[every[32:40], every[16:24]], rtol=1e-5)


def test_an_evaluation_leaves_the_model_and_the_generator_as_they_were(model, tokens):
    windows, generator = EvalWindows(tokens, LENGTH, CPU), torch.get_rng_state()
    for training in (True, False):
        model.train(training)
        token_losses(model, windows, np.arange(3))
        logit_std(model, windows.batch(np.arange(3))[0])
        assert model.training == training
        assert all(module.training == training for module in model.modules())
    assert torch.equal(torch.get_rng_state(), generator)
    assert all(parameter.grad is None for parameter in model.parameters())


def test_an_evaluation_that_is_stopped_is_cut_short_after_the_batch(model, tokens, monkeypatch):
    monkeypatch.setattr(evaluation, "BATCH_TOKENS", 2 * LENGTH)
    windows, asked = EvalWindows(tokens, LENGTH, CPU), []

    def stopping():
        asked.append(1)
        return len(asked) == 2

    assert len(token_losses(model, windows, np.arange(10), stopping)) == 4 * LENGTH


def test_the_spread_of_scores_is_that_over_allowed_keys_and_the_mean_of_heads(model, tokens):
    batch = EvalWindows(tokens, LENGTH, CPU).batch(np.arange(3))[0]
    spreads = logit_std(model, batch)
    model.eval()
    for scores, spread in zip(model.attention_scores(batch), spreads, strict=True):
        heads = [head[head.isfinite()].double().std().item() for head in scores.transpose(0, 1)]
        assert spread == pytest.approx(sum(heads) / len(heads), rel=1e-5)


def test_the_mean_is_taken_in_double_precision():
    losses = np.full(2**25, 0.1, dtype=np.float32)
    assert mean_loss(losses) == pytest.approx(float(np.float32(0.1)), rel=1e-12)


def test_documents_end_with_their_separator():
    tokens = np.array([5, 6, 9, 7, 9, 8])  # 9 ends a document
    losses = np.array([1.0, 2.0, 4.0, 8.0, 16.0], dtype=np.float32)
    documents = document_losses(losses, tokens, 9, 3)
    assert documents["nats"].tolist() == [3.0, 12.0, 16.0]
    assert documents["tokens"].tolist() == [2, 2, 1]


def test_without_separators_blocks_stand_in_for_documents():
    documents = document_losses(np.arange(5, dtype=np.float32), np.zeros(6, int), None, 2)
    assert documents["nats"].tolist() == [1.0, 5.0, 4.0]
    assert documents["tokens"].tolist() == [2, 2, 1]


def test_a_document_without_a_scored_token_is_left_out():
    tokens = np.array([9, 9, 1, 9])
    documents = document_losses(np.ones(3, dtype=np.float32), tokens, 9, 3)
    assert documents["tokens"].tolist() == [1, 2]
