import math

import pytest
import torch

from oelm_lib.data.batches import IGNORED
from tests.conftest import ARMS, TINY_MODEL

RELATIVE = 1e-5  # float32 rounding through a few layers


def batch(cfg, rows=3, seed=0):
    generator = torch.Generator().manual_seed(seed)
    tokens = torch.randint(cfg.vocab_size, (rows, cfg.max_seq_len + 1), generator=generator)
    return tokens[:, :-1], tokens[:, 1:]


def reference_loss(weights, cfg, tokens, targets):
    """The same model in single operations: softmax, mask, GELU and LayerNorm are explicit."""

    def norm(x, name):
        centred = x - x.mean(-1, keepdim=True)
        return (
            centred
            / (centred.pow(2).mean(-1, keepdim=True) + 1e-5).sqrt()
            * weights[f"{name}.weight"]
            + weights[f"{name}.bias"]
        )

    length, k = tokens.shape[1], cfg.d_model // cfg.num_heads
    x = weights["token_embedding.weight"][tokens] + weights["position_embedding.weight"][:length]
    future = torch.ones(length, length).triu(1).bool()
    for layer in range(cfg.num_layers):
        prefix = f"blocks.{layer}"
        h = norm(x, f"{prefix}.ln1")
        heads = []
        for head in range(cfg.num_heads):
            rows = slice(head * k, head * k + k)
            q, key, v = (h @ weights[f"{prefix}.attention.{n}_proj.weight"][rows].T for n in "qkv")
            logits = (q @ key.transpose(1, 2) / math.sqrt(k)).masked_fill(future, -math.inf)
            weight = (logits - logits.amax(-1, keepdim=True)).exp()
            heads.append(weight / weight.sum(-1, keepdim=True) @ v)
        x = x + torch.cat(heads, -1) @ weights[f"{prefix}.attention.o_proj.weight"].T
        h = (
            norm(x, f"{prefix}.ln2") @ weights[f"{prefix}.fc_in.weight"].T
            + weights[f"{prefix}.fc_in.bias"]
        )
        h = 0.5 * h * (1 + torch.erf(h / math.sqrt(2)))
        x = x + h @ weights[f"{prefix}.fc_out.weight"].T + weights[f"{prefix}.fc_out.bias"]
    logits = norm(x, "ln_out") @ weights["token_embedding.weight"].T
    probabilities = logits.log_softmax(-1).gather(-1, targets.unsqueeze(-1))
    return logits, -probabilities.mean()


def test_logits_and_gradients_equal_a_plain_softmax_reference(arm_config):
    from oelm_lib.model.gpt import GPT

    model = GPT(arm_config, seed=3)
    tokens, targets = batch(arm_config)
    weights = {
        n: p.detach().clone().requires_grad_(p.requires_grad) for n, p in model.named_parameters()
    }
    expected_logits, expected_loss = reference_loss(weights, arm_config, tokens, targets)
    expected_loss.backward()
    logits, _ = model(tokens)
    _, loss = model(tokens, targets)
    loss.backward()
    assert torch.allclose(logits, expected_logits, rtol=RELATIVE, atol=RELATIVE)
    assert loss.item() == pytest.approx(expected_loss.item(), rel=RELATIVE)
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            assert parameter.grad is None
        else:
            scale = weights[name].grad.abs().max()
            assert (parameter.grad - weights[name].grad).abs().max() <= RELATIVE * scale, name


def test_a_later_token_cannot_change_an_earlier_logit(arm_config):
    from oelm_lib.model.gpt import GPT

    model = GPT(arm_config)
    tokens, _ = batch(arm_config)
    changed = tokens.clone()
    changed[:, 7] = (changed[:, 7] + 1) % arm_config.vocab_size
    before, after = model(tokens)[0], model(changed)[0]
    assert torch.equal(before[:, :7], after[:, :7])
    assert not torch.equal(before[:, 7:], after[:, 7:])


def test_single_losses_average_to_the_loss_and_skip_what_is_not_scored(model_config, monkeypatch):
    from oelm_lib.model import gpt

    cfg = model_config()
    monkeypatch.setattr(gpt, "CHUNK", 5)
    model = gpt.GPT(cfg)
    tokens, targets = batch(cfg)
    targets = targets.clone()
    targets[0, 4:] = IGNORED
    losses = model.token_losses(tokens, targets)
    assert (losses[0, 4:] == 0).all()
    scored = losses[targets != IGNORED]
    assert scored.mean().item() == pytest.approx(model(tokens, targets)[1].item(), rel=RELATIVE)


def test_arms_with_one_seed_share_weights_bit_for_bit(model_config):
    from oelm_lib.model.gpt import GPT

    states = {
        name: GPT(model_config(**changes), seed=5).state_dict() for name, changes in ARMS.items()
    }
    base = states["baseline"]
    for state in states.values():
        assert state.keys() == base.keys()
        for name, value in state.items():
            if "q_proj" not in name and "k_proj" not in name:
                assert torch.equal(value, base[name]), name
    for name, value in states["oelm_random"].items():
        assert torch.equal(value, base[name]), name
    gaussian = states["frozen_gaussian"]["blocks.0.attention.q_proj.weight"]
    ratio = 1 / TINY_MODEL["qk_scale"]
    assert torch.allclose(gaussian, base["blocks.0.attention.q_proj.weight"] * ratio, rtol=1e-6)
    assert not torch.equal(
        GPT(model_config(), seed=6).token_embedding.weight, base["token_embedding.weight"]
    )


def test_building_a_model_draws_nothing_from_the_default_generator(model_config):
    from oelm_lib.model.gpt import GPT

    before = torch.get_rng_state()
    GPT(model_config())
    assert torch.equal(torch.get_rng_state(), before)


def test_medium_512_has_the_logs_parameter_counts():
    from oelm_lib import config
    from oelm_lib.model.gpt import GPT

    baseline = GPT(config.load_config("GPT-01").model).parameter_counts()
    frozen = GPT(config.load_config("GPT-02").model).parameter_counts()
    assert baseline == {"total": 44_896_768, "trainable": 44_896_768, "frozen": 0}
    assert frozen == {"total": 44_896_768, "trainable": 41_751_040, "frozen": 3_145_728}


def test_freezing_follows_the_fields(model_config):
    from oelm_lib.model.gpt import GPT

    model = GPT(model_config(freeze_k=True, frozen_layers=(1,)))
    frozen = [name for name, parameter in model.named_parameters() if not parameter.requires_grad]
    assert frozen == ["blocks.1.attention.k_proj.weight"]


def test_dropout_acts_in_training_only(model_config):
    from oelm_lib.model.gpt import GPT

    cfg = model_config(dropout=0.5)
    model, (tokens, targets) = GPT(cfg), batch(cfg)
    assert model(tokens, targets)[1] != model(tokens, targets)[1]
    model.eval()
    assert model(tokens, targets)[1] == model(tokens, targets)[1]


def test_too_long_an_input_is_refused(model_config):
    from oelm_lib.model.gpt import GPT

    with pytest.raises(ValueError, match="13 tokens exceed max_seq_len = 12"):
        GPT(model_config())(torch.zeros(1, 13, dtype=torch.long))


def test_untrained_loss_is_near_that_of_a_uniform_guess(model_config):
    from oelm_lib.model.gpt import GPT

    cfg = model_config()
    loss = GPT(cfg)(*batch(cfg))[1]
    assert loss.item() == pytest.approx(math.log(cfg.vocab_size), abs=0.1)
