import math

import pytest
import torch

RELATIVE = 1e-5  # float32 rounding through one layer
ADDITIONS = {
    "rope": {"position": "rope"},
    "alibi": {"position": "alibi"},
    "t5": {"position": "t5"},
    "tied": {"qk_tied": True},
    "bias": {"qk_bias": True},
    "norm": {"qk_norm": True},
    "gain": {"qk_gain": True},
    "temperature": {"head_temperature": True},
    "core": {"qk_core": True},
    "delta": {"delta_rank": 3},
    "conv": {"key_conv": True},
    "shift": {"key_shift": True},
}
ALL = {key: value for changes in ADDITIONS.values() for key, value in changes.items()}
WITHOUT_EFFECT = ("bias", "gain", "temperature", "core", "delta", "conv")
FROZEN = {"freeze_q": True, "freeze_k": True, "qk_init": "orthogonal", "qk_scale": 1.0}


@pytest.fixture(params=[*ADDITIONS, "all"])
def changed(request, model_config):
    """A frozen arm with each addition alone, and with all together."""
    return model_config(**FROZEN | ADDITIONS.get(request.param, ALL))


def stirred(cfg):
    """A model whose every parameter differs from its start."""
    from oelm_lib.model.gpt import GPT

    model, generator = GPT(cfg, seed=2), torch.Generator().manual_seed(0)
    with torch.no_grad():
        for weight in model.parameters():
            weight += 0.2 * torch.randn(weight.shape, generator=generator)
    return model


def inputs(cfg, length=None):
    return torch.randn(
        2, length or cfg.max_seq_len, cfg.d_model, generator=torch.Generator().manual_seed(1)
    )


def reference(attention, cfg, x):
    """The same, a sequence, a head and a query at a time, from the formulas of the module's table."""
    length, width = x.shape[1], cfg.d_head
    out = torch.zeros_like(x)
    for b in range(len(x)):
        for h in range(cfg.num_heads):
            rows = slice(h * width, (h + 1) * width)
            sides = {}
            for side in ("q", "k"):
                proj = getattr(attention, f"{side}_proj")
                weight = proj.weight[rows]
                if r := cfg.delta_rank:
                    low = getattr(attention, f"{side}_delta_a")[h * r : (h + 1) * r]
                    weight = weight + getattr(attention, f"{side}_delta_b")[h] @ low
                sides[side] = x[b] @ weight.T + (proj.bias[rows] if cfg.qk_bias else 0)
            q, k, v = sides["q"], sides["k"], x[b] @ attention.v_proj.weight[rows].T
            if cfg.qk_core:
                q = torch.stack([attention.qk_core[h].T @ row for row in q])
            if cfg.key_conv:
                taps, blank = attention.key_conv[rows], torch.zeros(width)
                past = [blank, blank, *k]
                k = torch.stack(
                    [sum(past[i + n] * taps[:, n] for n in range(3)) for i in range(length)]
                )
            if cfg.key_shift:
                half = width // 2
                before = torch.cat([torch.zeros(1, half), k[:-1, :half]])
                k = torch.cat([before, k[:, half:]], 1)
            if cfg.qk_norm:
                q, k = (s / s.pow(2).mean(1, keepdim=True).sqrt() for s in (q, k))
            if cfg.qk_gain:
                q, k = q * attention.q_gain[rows], k * attention.k_gain[rows]
            if cfg.head_temperature:
                q = q * attention.head_temperature[h]
            if cfg.position == "rope":
                q, k = turned(q), turned(k)
            for i in range(length):
                scores = k[: i + 1] @ q[i] / math.sqrt(width)
                if cfg.position == "alibi":
                    scores = scores - 2 ** (-8 * (h + 1) / cfg.num_heads) * torch.arange(i, -1, -1)
                if cfg.position == "t5":  # these lengths are below the first shared bucket
                    scores = scores + attention.relative_bias[:, h][torch.arange(i, -1, -1)]
                out[b, i, rows] = scores.softmax(0) @ v[: i + 1]
    return out @ attention.o_proj.weight.T


def turned(x):
    """Rotary positions as complex numbers."""
    half = x.shape[1] // 2
    rate = torch.tensor([10000.0 ** (-n / half) for n in range(half)])
    angle = torch.arange(len(x))[:, None] * rate
    pair = torch.complex(x[:, :half], x[:, half:]) * torch.polar(torch.ones_like(angle), angle)
    return torch.cat([pair.real, pair.imag], 1)


def test_each_addition_equals_its_formula(changed):
    attention = stirred(changed).blocks[0].attention
    x = inputs(changed)
    with torch.no_grad():
        assert torch.allclose(
            attention(x), reference(attention, changed, x), rtol=RELATIVE, atol=RELATIVE
        )


def test_no_addition_lets_a_later_token_change_an_earlier_logit(changed):
    model = stirred(changed)
    tokens = torch.arange(changed.max_seq_len)[None] % changed.vocab_size
    other = tokens.clone()
    other[:, 7] += 1
    before, after = model(tokens)[0], model(other)[0]
    assert torch.equal(before[:, :7], after[:, :7])
    assert not torch.equal(before[:, 7:], after[:, 7:])


def test_each_addition_is_trained_and_leaves_frozen_tensors_alone(changed):
    from oelm_lib.model.gpt import GPT

    model = GPT(changed)
    ids = torch.randint(
        changed.vocab_size, (3, changed.max_seq_len + 1), generator=torch.Generator().manual_seed(0)
    )
    with torch.no_grad():  # off the start, where some gradients are 0
        for name, weight in model.named_parameters():
            if name.endswith("delta_b"):
                weight += 0.1
    model(ids[:, :-1], ids[:, 1:])[1].backward()
    frozen = {name for name, weight in model.named_parameters() if not weight.requires_grad}
    sides = ("q",) if changed.qk_tied else ("q", "k")
    assert frozen == {
        f"blocks.{n}.attention.{s}_proj.weight" for n in range(changed.num_layers) for s in sides
    }
    for name, weight in model.named_parameters():
        if name in frozen:
            assert weight.grad is None
        else:
            assert weight.grad.abs().max() > 0, name


@pytest.mark.parametrize("name", WITHOUT_EFFECT)
def test_a_trained_addition_starts_without_effect_and_adds_keys_only(model_config, name):
    from oelm_lib.model.gpt import GPT

    plain, more = GPT(model_config(**FROZEN)), GPT(model_config(**FROZEN | ADDITIONS[name]))
    tokens = torch.arange(12)[None]
    assert torch.allclose(plain(tokens)[0], more(tokens)[0], rtol=RELATIVE, atol=RELATIVE)
    assert plain.state_dict().keys() < more.state_dict().keys()
    assert all(
        torch.equal(weight, more.state_dict()[key]) for key, weight in plain.state_dict().items()
    )


@pytest.mark.parametrize(
    ("name", "numbers"),
    {
        "delta": 6 * 2 * 8 * 3 * (512 + 64),
        "core": 196_608,
        "conv": 9_216,
        "gain": 6_144,
        "bias": 6_144,
        "temperature": 48,
        "t5": 1_536 - 262_144,
        "rope": -262_144,
        "tied": -1_572_864,
        "shift": 0,
    }.items(),
)
def test_medium_512_numbers_of_parameters(name, numbers):
    from oelm_lib.config import load_config
    from oelm_lib.model.gpt import GPT, parameter_counts

    changes = {f"model.{key}": value for key, value in ADDITIONS[name].items()}
    assert (
        parameter_counts(GPT(load_config("GPT-02", changes).model))["total"] == 44_896_768 + numbers
    )


def test_t5_buckets_are_single_then_grow_with_the_logarithm():
    from oelm_lib.model.attention import t5_bucket

    distance = torch.tensor([-3, 0, 1, 15, 16, 17, 18, 31, 32, 64, 127, 128, 5000])
    assert t5_bucket(distance).tolist() == [0, 0, 1, 15, 16, 16, 16, 21, 21, 26, 31, 31, 31]
    assert (t5_bucket(torch.arange(300)).diff() >= 0).all()


def test_rotary_scores_depend_on_the_distance_alone(model_config):
    from oelm_lib.model.attention import _rotate

    x = torch.ones(1, 1, 9, 8)
    scores = _rotate(x) @ _rotate(x).mT
    assert torch.allclose(scores[..., 3:, 3:], scores[..., :-3, :-3], atol=1e-5)
    assert scores[0, 0, 0, 0] > scores[0, 0, 0, 3]


def test_the_additions_pass_under_bf16_autocast(changed):
    model = stirred(changed)
    tokens = torch.arange(changed.max_seq_len)[None] % changed.vocab_size
    with torch.autocast("cpu", torch.bfloat16):
        loss = model(tokens[:, :-1], tokens[:, 1:])[1]
    loss.backward()
    assert loss.isfinite()


def test_frozen_for_some_steps_only(model_config):
    from oelm_lib.model.gpt import GPT

    model = GPT(
        model_config(**FROZEN | {"freeze_from": 3, "freeze_until": 5, "frozen_layers": (0,)})
    )
    query = [block.attention.q_proj.weight for block in model.blocks]
    states = []
    for step in range(6):
        changed = model.freeze(step)
        states.append((changed, query[0].requires_grad, query[1].requires_grad))
    trained, frozen = (True, True), (False, True)
    assert states == [
        (False, *trained),
        (False, *trained),
        (False, *trained),
        (True, *frozen),
        (False, *frozen),
        (True, *trained),
    ]
