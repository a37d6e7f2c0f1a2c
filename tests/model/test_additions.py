"""What holds for every addition: a new one is found by its file and tested here."""

import importlib
import re

import pytest
import torch

from oelm_lib.config import ROOT, load_config
from oelm_lib.model.additions import ADDITIONS, unfolded
from oelm_lib.model.additions.base import Addition
from oelm_lib.model.cost import parameter_counts, qk_share
from tests.model.additions import (
    CHANGES_THE_START,
    EACH,
    EACH_AND_ALL,
    FROZEN,
    inputs,
    reference,
    stirred,
)

RELATIVE = 1e-5  # float32 rounding through one layer
SAME = 1e-4  # float32 rounding through two layers of stirred weights
NEUTRAL = [name for name in EACH if name not in CHANGES_THE_START]


@pytest.fixture(params=EACH_AND_ALL)
def changed(request, model_config):
    """A frozen arm with each addition alone, and with all together."""
    return model_config(num_heads=4, **FROZEN | EACH_AND_ALL[request.param])


@pytest.mark.parametrize("addition", ADDITIONS, ids=lambda addition: addition.name)
def test_its_file_says_formula_and_count_in_its_docstring(addition):
    text = importlib.import_module(type(addition).__module__).__doc__
    assert re.search(r"^Formula: .*\nParameters per layer: .*\.$", text, re.MULTILINE), text


@torch.no_grad()
def test_it_equals_its_formula(changed):
    attention, x = stirred(changed).blocks[0].attention, inputs(changed)
    expected = reference(attention, changed, x)
    torch.testing.assert_close(attention(x), expected, rtol=RELATIVE, atol=RELATIVE)


@torch.no_grad()
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_its_bias_has_the_strides_that_the_fused_kernels_of_a_gpu_take(changed, dtype):
    attention = stirred(changed).blocks[0].attention
    with torch.autocast("cpu", dtype, enabled=dtype != torch.float32):
        bias = attention.heads(inputs(changed))[3]
    assert bias is None or bias.stride(-1) == 1


@torch.no_grad()
@pytest.mark.parametrize("name", EACH)
def test_it_changes_the_output(model_config, name):
    with_it = stirred(model_config(num_heads=4, **FROZEN | EACH[name])).blocks[0].attention
    without = stirred(model_config(num_heads=4, **FROZEN)).blocks[0].attention
    without.load_state_dict({key: with_it.state_dict()[key] for key in without.state_dict()})
    x = inputs(with_it.cfg)
    assert not torch.allclose(with_it(x), without(x), rtol=1e-3, atol=1e-3)


def test_a_later_token_cannot_change_an_earlier_logit(changed):
    model = stirred(changed)
    tokens = torch.arange(changed.max_seq_len)[None] % changed.vocab_size
    other = tokens.clone()
    other[:, 7] += 1
    before, after = model(tokens)[0], model(other)[0]
    assert torch.equal(before[:, :7], after[:, :7])
    assert not torch.equal(before[:, 7:], after[:, 7:])


def test_it_is_trained_and_frozen_tensors_are_not(changed):
    model = stirred(changed)
    generator = torch.Generator().manual_seed(0)
    shape = (3, changed.max_seq_len + 1)
    ids = torch.randint(changed.vocab_size, shape, generator=generator)
    model(ids[:, :-1], ids[:, 1:])[1].backward()
    frozen = {name for name, weight in model.named_parameters() if not weight.requires_grad}
    sides = ("q",) if changed.qk_tied else ("q", "k")
    layers = range(changed.num_layers)
    assert frozen == {f"blocks.{n}.attention.{side}_proj.weight" for n in layers for side in sides}
    for name, weight in model.named_parameters():
        if name in frozen:
            assert weight.grad is None
        else:
            assert weight.grad.abs().max() > 0, name


@pytest.mark.parametrize("name", NEUTRAL)
def test_it_starts_without_effect_and_adds_keys_only(model_config, name):
    from oelm_lib.model.gpt import GPT

    plain, more = GPT(model_config(**FROZEN)), GPT(model_config(**FROZEN | EACH[name]))
    tokens = torch.arange(12)[None]
    torch.testing.assert_close(plain(tokens)[0], more(tokens)[0], rtol=RELATIVE, atol=RELATIVE)
    assert plain.state_dict().keys() < more.state_dict().keys()
    shared = {key: more.state_dict()[key] for key in plain.state_dict()}
    assert all(torch.equal(weight, shared[key]) for key, weight in plain.state_dict().items())


@pytest.mark.parametrize("frozen", [{}, {"freeze_k": True}, FROZEN, FROZEN | {"freeze_until": 5}])
def test_cost_counts_its_parameters(changed, frozen):
    from oelm_lib.model.gpt import GPT

    if changed.qk_tied and frozen == {"freeze_k": True}:
        frozen = {}
    off = {"freeze_q": False, "freeze_k": False, "freeze_until": None}
    cfg = changed.model_copy(update=off | frozen)
    model = GPT(cfg)
    assert parameter_counts(cfg) == model.parameter_counts()
    trained = sum(
        weight.numel()
        for name, weight in model.named_parameters()
        if ".attention." in name
        and not name.endswith(("v_proj.weight", "o_proj.weight"))
        and weight.requires_grad
    )
    assert qk_share(cfg) == pytest.approx(trained / (2 * cfg.num_layers * cfg.d_model**2))


MEDIUM_512 = {
    "qk_input_gain": 6_144,
    "delta_rank": 6 * 2 * 8 * 2 * (512 + 64),
    "qk_bias": 6_144,
    "head_mixing": 768,
    "qk_core": 196_608,
    "key_conv": 9_216,
    "key_shift": 0,
    "induction_heads": 0,
    "qk_norm": 0,
    "qk_gain": 6_144,
    "head_temperature": 48,
    "rope": -262_144,
    "alibi": -262_144,
    "t5": 1_536 - 262_144,
    "query_distance": 12_288,
    "forget_gate": 24_624,
    "head_gate": 2 * 48,
}


@pytest.mark.parametrize("name", MEDIUM_512)
def test_numbers_of_parameters_at_medium_512(name):
    changes = {f"model.{key}": value for key, value in EACH[name].items()}
    cfg = load_config("GPT-02", changes).model
    assert parameter_counts(cfg)["total"] == 44_896_768 + MEDIUM_512[name]


def test_numbers_of_combined_additions_at_medium_512():
    sandwich = "model.qk_input_gain=true model.head_mixing=true model.qk_gain=true"
    plain = parameter_counts(load_config("GPT-02").model)["total"]
    assert parameter_counts(load_config("GPT-02", sandwich).model)["total"] - plain == 13_056
    gate = load_config("GPT-02", "model.head_gate=12").model
    assert parameter_counts(gate)["total"] - plain == 576


@pytest.mark.parametrize("name", EACH)
@torch.no_grad()
def test_it_folds_into_plain_projections_or_is_named_as_unfolded(model_config, name):
    cfg = model_config(num_heads=4, **FROZEN | EACH[name])
    attention, x = stirred(cfg).blocks[0].attention, inputs(cfg)
    if unfolded(cfg):
        assert unfolded(cfg) == [name]
        return
    q, k, _, bias = attention.heads(x)
    (query, query_bias), (key, key_bias) = attention.as_linear()
    for heads, weight, offset in ((q, query, query_bias), (k, key, key_bias)):
        folded = (x @ weight.T + offset).unflatten(2, (4, -1)).transpose(1, 2)
        torch.testing.assert_close(folded, heads, rtol=SAME, atol=SAME)
    assert bias is None
    torch.testing.assert_close(attention(x), reference(attention, cfg, x), rtol=SAME, atol=SAME)


@torch.no_grad()
def test_what_does_not_fold_is_left_out_whatever_its_hooks_are(model_config):
    class Rectified(Addition):
        name = "rectified"

        def read(self, attention, x, side):
            return x.relu()

        def project(self, attention, x, heads, side):
            return heads + heads.relu()

    attention = stirred(model_config(**FROZEN)).blocks[0].attention
    plain = attention.as_linear()
    attention.additions.append(Rectified())
    for (weight, bias), (expected, offset) in zip(attention.as_linear(), plain, strict=True):
        assert torch.equal(weight, expected) and torch.equal(bias, offset)


def test_it_passes_under_bf16_autocast(changed):
    model = stirred(changed)
    tokens = torch.arange(changed.max_seq_len)[None] % changed.vocab_size
    with torch.autocast("cpu", torch.bfloat16):
        loss = model(tokens[:, :-1], tokens[:, 1:])[1]
    exact = model(tokens[:, :-1], tokens[:, 1:])[1].item()
    loss.backward()
    assert loss.item() == pytest.approx(exact, rel=0.03)  # bf16 keeps 8 bits


@torch.no_grad()
def test_cached_logits_are_those_of_the_whole_sequence(changed):
    model, length = stirred(changed).eval(), changed.max_seq_len
    generator = torch.Generator().manual_seed(3)
    tokens = torch.randint(changed.vocab_size, (3, length), generator=generator)
    whole, _ = model(tokens)
    past = [{} for _ in model.blocks]
    starts, ends = [0, *range(4, length)], range(4, length + 1)
    for start, end in zip(starts, ends, strict=True):
        logits = model.next_logits(tokens[:, start:end], past)
        torch.testing.assert_close(logits, whole[:, end - 1], rtol=SAME, atol=SAME)


def test_dropout_draws_the_same_in_every_arm(changed, model_config):
    from oelm_lib.model.gpt import GPT

    tokens, states = torch.arange(12)[None], []
    for cfg in (model_config(num_heads=4), changed):
        model = GPT(cfg.model_copy(update={"dropout": 0.3}))
        torch.manual_seed(1)
        model(tokens)
        states.append(torch.get_rng_state())
    assert torch.equal(*states)


def test_the_public_page_lists_every_addition():
    text = (ROOT / "docs" / "own-attention.md").read_text()
    for name in EACH:
        assert re.search(rf"^\| `(position: )?{name}(: [rn])?` \|", text, re.MULTILINE), name
