import pytest
import torch

from tests.model.additions import stirred


def drawn(model, tokens, count, seed=0, **options):
    from oelm_lib.model.generation import generate

    return generate(model, tokens, count, torch.Generator().manual_seed(seed), **options)


def prompts(cfg, rows=3, length=4):
    return torch.randint(cfg.vocab_size, (rows, length), generator=torch.Generator().manual_seed(3))


@torch.no_grad()
def test_greedy_text_is_that_of_whole_sequences(model_config):
    model = stirred(model_config()).eval()
    tokens = prompts(model.cfg)
    found = drawn(model, tokens, 6, temperature=0.0)
    for _ in range(6):
        tokens = torch.cat([tokens, model(tokens)[0][:, -1].argmax(-1, keepdim=True)], 1)
    assert torch.equal(found, tokens[:, 4:])


def test_the_seed_decides_and_the_default_generator_is_left_alone(model_config):
    model = stirred(model_config(dropout=0.5)).train()
    before = torch.get_rng_state()
    first, again, other = (drawn(model, prompts(model.cfg), 8, seed) for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert torch.equal(torch.get_rng_state(), before)
    assert model.training


def test_the_training_mode_is_restored_after_an_error(model_config):
    model = stirred(model_config(dropout=0.5)).train()
    unknown = torch.full((1, 4), model.cfg.vocab_size)  # no id of a token
    with pytest.raises(IndexError):
        drawn(model, unknown, 1)
    assert all(module.training for module in model.modules())


def test_logits_are_drawn_from_as_they_are_by_default(model_config):
    model = stirred(model_config())
    tokens = prompts(model.cfg)
    plain, same, warmer = (
        drawn(model, tokens, 8, **options)
        for options in ({}, {"temperature": 1.0}, {"temperature": 3.0})
    )
    assert torch.equal(plain, same)
    assert not torch.equal(plain, warmer)


def test_text_ends_where_the_context_is_full(model_config):
    model = stirred(model_config())
    assert drawn(model, prompts(model.cfg), 100).shape == (3, model.cfg.max_seq_len - 4 + 1)
    assert drawn(model, prompts(model.cfg, length=model.cfg.max_seq_len), 100).shape == (3, 1)


def test_no_token_is_an_empty_text(model_config):
    model = stirred(model_config())
    assert drawn(model, prompts(model.cfg), 0).shape == (3, 0)


def test_what_top_k_and_top_p_leave():
    from oelm_lib.model.generation import probabilities

    share = torch.tensor([[0.1, 0.4, 0.2, 0.3]])
    logits = share.log()
    torch.testing.assert_close(probabilities(logits), share)
    torch.testing.assert_close(probabilities(logits, top_k=2), torch.tensor([[0, 4 / 7, 0, 3 / 7]]))
    torch.testing.assert_close(probabilities(logits, top_k=9), share)
    torch.testing.assert_close(
        probabilities(logits, top_p=0.75), torch.tensor([[0, 4 / 9, 2 / 9, 3 / 9]])
    )
    for least in (0.01, 1e-300):
        likeliest = torch.tensor([[0, 1.0, 0, 0]])
        torch.testing.assert_close(probabilities(logits, top_p=least), likeliest)
    torch.testing.assert_close(
        probabilities(logits, top_k=3, top_p=0.5), torch.tensor([[0, 4 / 7, 0, 3 / 7]])
    )
