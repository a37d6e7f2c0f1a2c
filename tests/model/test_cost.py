import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from oelm_lib.config import load_config
from oelm_lib.model.additions import active
from oelm_lib.model.cost import (
    gemms,
    step_bytes,
    step_flops,
    training_hours,
)
from tests.conftest import ARMS
from tests.model.additions import EACH, EACH_AND_ALL, FROZEN
from tests.model.test_gpt import batch, reference_loss

BATCH = 3


def plain_loss(model, cfg, tokens, targets):
    """The plain path in single products: softmax attention over all heads, all logits."""
    weights = dict(model.named_parameters())
    f = torch.nn.functional

    def norm(x, name):
        return f.layer_norm(x, (cfg.d_model,), weights[f"{name}.weight"], weights[f"{name}.bias"])

    x = (
        weights["token_embedding.weight"][tokens]
        + weights["position_embedding.weight"][: tokens.shape[1]]
    )
    for layer in range(cfg.num_layers):
        name = f"blocks.{layer}"
        h = norm(x, f"{name}.ln1")
        q, k, v = (
            f.linear(h, weights[f"{name}.attention.{n}_proj.weight"])
            .unflatten(2, (cfg.num_heads, -1))
            .transpose(1, 2)
            for n in "qkv"
        )
        scores = (q @ k.mT) / cfg.d_head**0.5
        future = torch.ones(scores.shape[-2:]).triu(1).bool()
        y = (scores.masked_fill(future, -torch.inf).softmax(-1) @ v).transpose(1, 2).flatten(2)
        x = x + f.linear(y, weights[f"{name}.attention.o_proj.weight"])
        h = f.linear(
            norm(x, f"{name}.ln2"), weights[f"{name}.fc_in.weight"], weights[f"{name}.fc_in.bias"]
        )
        x = x + f.linear(
            f.gelu(h), weights[f"{name}.fc_out.weight"], weights[f"{name}.fc_out.bias"]
        )
    logits = f.linear(norm(x, "ln_out"), weights["token_embedding.weight"])
    return f.cross_entropy(logits.flatten(0, 1), targets.flatten())


@pytest.mark.parametrize("changes", [*ARMS.values(), {"freeze_k": True, "frozen_layers": (1,)}])
def test_flops_are_those_that_torch_counts_on_the_plain_path(model_config, changes):
    from oelm_lib.model.gpt import GPT

    cfg = model_config(**changes)
    model, (tokens, targets) = GPT(cfg), batch(cfg, BATCH)
    expected = step_flops(cfg, BATCH)
    with FlopCounterMode(display=False) as forward:
        loss = plain_loss(model, cfg, tokens, targets)
    assert forward.get_total_flops() == expected["forward"]
    with FlopCounterMode(display=False) as backward:
        loss.backward()
    assert backward.get_total_flops() == expected["backward"]
    weights = {name: value.detach() for name, value in model.named_parameters()}
    assert loss.item() == pytest.approx(
        reference_loss(weights, cfg, tokens, targets)[1].item(), rel=1e-5
    )


def counted_and_predicted(cfg):
    from oelm_lib.model.gpt import GPT

    model, (tokens, targets) = GPT(cfg), batch(cfg, BATCH)
    with FlopCounterMode(display=False) as counter:
        model(tokens, targets)[1].backward()
    return counter.get_total_flops(), step_flops(cfg, BATCH)["plain"]


@pytest.mark.parametrize("name", [*EACH, "tied"])
@pytest.mark.parametrize("frozen", [True, False])
def test_an_addition_costs_what_torch_counts(model_config, name, frozen):
    # A trained bias of the scores takes another kernel, whatever it is: compare arms that have one.
    biased = name in ("query_distance", "forget_gate")
    plain = {"freeze_q": frozen, "freeze_k": frozen, "position": "t5" if biased else "learned"}
    before = counted_and_predicted(model_config(**plain))
    after = counted_and_predicted(model_config(**plain | EACH_AND_ALL[name]))
    if name == "t5":
        assert after[1] == before[1]
        return
    assert after[0] - before[0] == after[1] - before[1]
    has_products = bool(addition_products(model_config(**EACH_AND_ALL[name])))
    assert (after[0] > before[0]) == has_products


def addition_products(cfg):
    return [product for addition in active(cfg) for product in addition.products(cfg, BATCH)]


def test_freezing_saves_the_weight_gradients_of_query_and_key_only():
    base, frozen = load_config("GPT-01").model, load_config("GPT-02").model
    saved = {(g.part, g.kind) for g in set(gemms(base, 8)) - set(gemms(frozen, 8))}
    assert saved == {("query", "weight"), ("key", "weight")}
    flops = step_flops(frozen, 8)
    assert (
        flops["saved_by_freezing"]
        == step_flops(base, 8)["plain"] - flops["plain"]
        == 6 * 2 * 2 * 4096 * 512**2
    )
    assert flops["saved_by_freezing"] / step_flops(base, 8)["plain"] == pytest.approx(
        0.022, abs=5e-4
    )


def test_a_projection_that_is_trained_for_some_steps_counts_as_trained(model_config):
    trained = model_config()
    for schedule in ({"freeze_until": 5}, {"freeze_from": 5}):
        sometimes = model_config(**FROZEN | schedule)
        assert gemms(sometimes, BATCH) == gemms(trained, BATCH)
        assert step_bytes(sometimes, BATCH) == step_bytes(trained, BATCH)


def test_frozen_gradients_and_adam_state_are_36_mib_smaller():
    base, frozen = (step_bytes(load_config(exp).model, 8) for exp in ("GPT-01", "GPT-02"))
    assert base["gradients"] + base["adam"] - frozen["gradients"] - frozen["adam"] == 36 * 2**20


@pytest.mark.parametrize("dropout", [0.0, 0.1])
def test_activations_are_within_a_tenth_of_what_the_forward_pass_keeps(model_config, dropout):
    from oelm_lib.model.gpt import GPT

    # A vocabulary with too many logits to hold at once: the path that the cost model describes.
    cfg = model_config(
        d_model=64, d_ff=256, num_heads=4, max_seq_len=160, vocab_size=2400, dropout=dropout
    )
    model, (tokens, targets) = GPT(cfg), batch(cfg, BATCH)
    parameters = {p.untyped_storage().data_ptr() for p in model.parameters()}
    kept = {}

    def pack(tensor):
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        model(tokens, targets)[1].backward()
    measured = sum(size for place, size in kept.items() if place not in parameters)
    # The chunked loss keeps the gradient of what the head reads outside the hooks' sight.
    measured += tokens.numel() * cfg.d_model * 4
    predicted = step_bytes(cfg, BATCH)["activations"]
    assert predicted == pytest.approx(measured, rel=0.1)


def test_attention_without_dropout_keeps_a_number_per_head_and_token():
    cfg = load_config("GPT-01").model.model_copy(update={"dropout": 0.0, "num_heads": 4})
    few, many = (step_bytes(cfg.model_copy(update={"num_heads": heads}), 8) for heads in (4, 16))
    tokens = 8 * cfg.max_seq_len
    assert many["activations"] - few["activations"] == tokens * cfg.num_layers * (16 - 4) * 4


def test_training_hours_are_flops_over_their_rate():
    cfg = load_config("GPT-01")
    flops = step_flops(cfg.model, cfg.train.batch_size)["fast"] * cfg.train.max_steps
    assert training_hours(cfg, 1e14) == pytest.approx(flops / 1e14 / 3600)
