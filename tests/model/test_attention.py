from collections import Counter

import pytest
import torch
from torch.nn import functional as F  # noqa: N812
from torch.utils._python_dispatch import TorchDispatchMode

from tests.model.additions import EACH_AND_ALL, FROZEN, inputs, stirred

RELATIVE = 1e-5  # float32 rounding


def test_t5_buckets_are_single_then_grow_with_the_logarithm():
    from oelm_lib.model.additions.t5 import bucket

    distance = torch.tensor([-3, 0, 1, 15, 16, 17, 18, 31, 32, 64, 127, 128, 5000])
    assert bucket(distance).tolist() == [0, 0, 1, 15, 16, 16, 16, 21, 21, 26, 31, 31, 31]
    assert (bucket(torch.arange(300)).diff() >= 0).all()


def test_rotary_scores_depend_on_the_distance_alone():
    from oelm_lib.model.additions.rope import rotate

    angle = torch.arange(9)[:, None] * torch.tensor([1.0, 0.1, 0.01, 0.001])
    turned = rotate(torch.ones(1, 1, 9, 8), angle.cos(), angle.sin())
    scores = turned @ turned.mT
    assert torch.allclose(scores[..., 3:, 3:], scores[..., :-3, :-3], atol=1e-5)
    assert scores[0, 0, 0, 0] > scores[0, 0, 0, 3]


def test_forget_gates_without_content_start_as_alibi(model_config):
    from oelm_lib.model.gpt import GPT

    gated = GPT(model_config(position="learned", forget_gate=True)).blocks[0].attention
    alibi = GPT(model_config(position="alibi")).blocks[0].attention
    blank = torch.zeros(1, 12, 16)
    torch.testing.assert_close(gated.heads(blank)[3], alibi.heads(blank)[3])


def test_induction_heads_start_tied_and_stay_so_where_frozen(model_config):
    from oelm_lib.model.gpt import GPT

    attention = GPT(model_config(**FROZEN | {"induction_heads": 1})).blocks[0].attention
    query, key = attention.q_proj.weight, attention.k_proj.weight
    assert torch.equal(query[:8], key[:8])
    assert not torch.equal(query[8:], key[8:])
    assert not key.requires_grad


def test_frozen_for_some_steps_only(model_config):
    from oelm_lib.model.gpt import GPT

    model = GPT(
        model_config(**FROZEN | {"freeze_from": 3, "freeze_until": 5, "frozen_layers": (0,)})
    )
    query = [block.attention.q_proj.weight for block in model.blocks]
    states = []
    for step in range(6):
        model.set_frozen(step)
        states.append((query[0].requires_grad, query[1].requires_grad))
    trained, frozen = (True, True), (False, True)
    assert states == [trained, trained, trained, frozen, frozen, trained]


@pytest.mark.parametrize(
    ("length", "bias"), [(1, None), (7, None), (128, None), (200, None), (150, 1), (150, 3)]
)
@pytest.mark.parametrize("dropout_p", [0.0, 0.3])
def test_blocked_attention_has_the_gradients_of_explicit_softmax(length, bias, dropout_p):
    """Of one block of queries and of two; `bias` is the number of its rows."""
    from oelm_lib.model.attention_kernels import QUERY_BLOCK, BlockedAttention
    from oelm_lib.model.dropout import keep_mask, keep_scale

    torch.manual_seed(0)
    q, k, v = (torch.randn(3, 2, length, 4, requires_grad=True) for _ in range(3))
    future = torch.full((length, length), -torch.inf).triu(1)
    trained = [q, k, v]
    if bias:
        trained.append(torch.randn(bias, 2, length, length, requires_grad=True))
    masked = trained[3] + future if bias else None
    torch.manual_seed(5)
    y = BlockedAttention.apply(q, k, v, masked, dropout_p)
    torch.manual_seed(5)
    keep = torch.ones(3, 2, length, length)
    for b in range(3) if dropout_p else ():
        for start in range(0, length, QUERY_BLOCK):
            end = min(start + QUERY_BLOCK, length)
            keep[b, :, start:end, :end] = keep_mask(torch.Size((2, end - start, end)), dropout_p)
    scores = q @ k.mT / 2 + (masked if bias else future)
    expected = scores.softmax(-1) * keep * keep_scale(dropout_p) @ v
    torch.testing.assert_close(y, expected, rtol=RELATIVE, atol=RELATIVE)
    grad = torch.randn_like(y)
    for gradient, other in zip(
        torch.autograd.grad(y, trained, grad),
        torch.autograd.grad(expected, trained, grad),
        strict=True,
    ):
        assert (gradient - other).abs().max() <= RELATIVE * max(other.abs().max(), 1)


@pytest.mark.parametrize("name", ["plain", *EACH_AND_ALL])
@torch.no_grad()
def test_attention_is_the_softmax_of_its_scores(name, model_config):
    from oelm_lib.model.attention import attention_scores

    attention = stirred(model_config(**FROZEN | EACH_AND_ALL.get(name, {}))).blocks[0].attention
    x = inputs(attention.cfg)
    q, k, v, bias = attention.heads(x)
    weights = attention_scores(q, k, bias).softmax(-1)
    assert (weights.triu(1) == 0).all()
    y = weights @ v
    expected = F.scaled_dot_product_attention(q, k, v, attn_mask=bias, is_causal=bias is None)
    torch.testing.assert_close(y, expected, rtol=RELATIVE, atol=RELATIVE)
    for addition in attention.additions:
        y = addition.output(attention, x, y)
    torch.testing.assert_close(attention.o_proj(y.transpose(1, 2).flatten(2)), attention(x))


FLASH, MATH = "_scaled_dot_product_flash_attention_for_cpu", "_scaled_dot_product_attention_math"


@pytest.mark.parametrize(
    ("changes", "training", "kernel"),
    [
        ({}, True, FLASH),
        ({"position": "rope"}, True, FLASH),
        ({"position": "alibi"}, True, FLASH),
        ({"position": "t5"}, True, None),  # the blocked kernel
        ({"position": "t5"}, False, FLASH),
        ({"forget_gate": True}, False, FLASH),
        ({"dropout": 0.1}, True, None),
    ],
)
def test_attention_takes_a_fast_kernel(model_config, changes, training, kernel):
    from oelm_lib.model.gpt import GPT

    model = GPT(model_config(**changes)).train(training)
    tokens = torch.arange(12)[None]
    with torch.set_grad_enabled(training), torch.profiler.profile() as profile:
        model(tokens)
    names = {event.name.removeprefix("aten::") for event in profile.events()}
    assert names & {FLASH, MATH} == ({kernel} if kernel else set())


class Operations(TorchDispatchMode):
    """Counts the operations of torch that are executed."""

    def __init__(self):
        super().__init__()
        self.names = Counter()

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.names[function.overloadpacket.__name__] += 1
        return function(*args, **kwargs or {})


def operations_of_a_step(cfg):
    from oelm_lib.model.gpt import GPT

    model, tokens = GPT(cfg), torch.arange(12)[None]
    with Operations() as operations:
        model(tokens, tokens)[1].backward()
    return operations.names


@pytest.mark.parametrize("position", ["rope", "alibi", "t5"])
def test_positions_are_computed_once_for_all_layers(model_config, position):
    one, three = (
        operations_of_a_step(model_config(position=position, num_layers=layers))
        for layers in (1, 3)
    )
    assert one["arange"] > 0
    for name in ("arange", "log", "cos", "sin"):
        assert one[name] == three[name]


def test_the_bias_of_t5_is_looked_up_as_an_embedding(model_config):
    """The backward pass of indexing by a tensor adds duplicates one after another on a GPU."""
    names = operations_of_a_step(model_config(position="t5", num_layers=3))
    assert names["embedding"] == names["embedding_dense_backward"] == 1 + 3
    assert not names["index"] and not names["index_put"]
