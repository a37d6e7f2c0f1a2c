import math
import subprocess
import sys

import pytest
import torch

from oelm_lib.config import OptimConfig
from oelm_lib.errors import UserError
from oelm_lib.training.freeze import frozen_digest
from oelm_lib.training.optim import (
    backward,
    clip_gradients,
    gradient_norm,
    learning_rates,
    make_optimizer,
    update,
)
from oelm_lib.training.precision import Precision

CPU = torch.device("cpu")


def optim(**changes):
    plain = {
        "learning_rate": 1e-3,
        "min_learning_rate": 1e-5,
        "warmup_steps": 10,
        "weight_decay": 0.01,
        "betas": (0.9, 0.999),
        "grad_clip": 1.0,
        "groups": (),
    }
    return OptimConfig(**plain | changes)


def rate(step, max_steps, **changes):
    """Rate of the common group."""
    (found,) = learning_rates(step, optim(**changes), max_steps)
    return found


@pytest.mark.parametrize(
    ("step", "expected"),
    [
        (0, 1e-4),
        (8, 9e-4),
        (9, 1e-3),
        (10, 1e-3),
        (55, (1e-3 + 1e-5) / 2),
        (100, 1e-5),
        (101, 1e-5),
    ],
)
def test_the_schedule_at_every_corner(step, expected):
    assert rate(step, 100) == pytest.approx(expected, rel=1e-12)


def test_the_schedule_without_warm_up_and_with_one_as_long_as_the_run():
    assert rate(0, 100, warmup_steps=0) == 1e-3
    assert rate(99, 100, warmup_steps=100) == 1e-3
    assert rate(49, 50, warmup_steps=100) == pytest.approx(5e-4)
    log = {"warmup_steps": 1000, "learning_rate": 3e-4, "min_learning_rate": 0}
    # the log's rate at its last validation
    assert rate(99_000, 100_000, **log) == pytest.approx(7.6e-8, rel=0.01)


def batch_for(cfg):
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randint(cfg.vocab_size, (4, cfg.max_seq_len + 1), generator=generator)
    return tokens[:, :-1], tokens[:, 1:]


@pytest.mark.parametrize("name", ["fp32", "bf16", "fp16"])
def test_frozen_bytes_are_unchanged_after_steps_with_weight_decay(model_config, name):
    from oelm_lib.model.gpt import GPT

    cfg = model_config(freeze_q=True, freeze_k=True, qk_init="orthogonal", qk_scale=1.0)
    model, precision = GPT(cfg), Precision(name, CPU)
    optimizer = make_optimizer(model, optim(weight_decay=0.5))
    before, tensors = frozen_digest(model)
    losses = []
    for _ in range(6):
        loss = backward(model, precision, batch_for(cfg))
        norm = gradient_norm(optimizer, precision)
        assert norm.isfinite()
        clip_gradients(optimizer, 1.0, norm)
        update(optimizer, precision, [1e-2])
        losses.append(loss.item())
    assert losses[-1] < losses[0]
    assert frozen_digest(model) == (before, tensors)
    assert tensors == 4
    assert len(optimizer.state) == sum(parameter.requires_grad for parameter in model.parameters())
    assert all(parameter.grad is None for parameter in model.parameters())


def test_decay_reaches_every_trainable_tensor(model_config):
    from oelm_lib.model.gpt import GPT

    model = GPT(model_config())
    optimizer = make_optimizer(model, optim(weight_decay=0.5))
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    update(optimizer, Precision("fp32", CPU), [0.1])
    for name, parameter in model.named_parameters():
        assert torch.allclose(parameter, before[name] * 0.95), name


def gradients_of(cfg, precision, grad_clip=1.0):
    """A model, its optimizer, and the norm of its gradients; they are clipped."""
    from oelm_lib.model.gpt import GPT

    model = GPT(cfg)
    optimizer = make_optimizer(model, optim())
    backward(model, precision, batch_for(cfg))
    norm = gradient_norm(optimizer, precision)
    clip_gradients(optimizer, grad_clip, norm)
    return model, optimizer, norm


def norm_of(model):
    """Norm of all gradients, by definition."""
    return math.sqrt(sum((p.grad.double() ** 2).sum() for p in model.parameters()))


@pytest.mark.parametrize(("name", "scale"), [("fp32", 1.0), ("bf16", 1.0), ("fp16", 65536.0)])
@pytest.mark.parametrize("grad_clip", [0.05, 1e6])
def test_gradients_are_clipped_to_the_norm_without_the_loss_scale(
    model_config, name, scale, grad_clip
):
    model, _, norm = gradients_of(model_config(), Precision(name, CPU), grad_clip)
    assert 0.1 < norm < 100
    expected = min(norm.item(), grad_clip) * scale
    assert norm_of(model) == pytest.approx(expected, rel=1e-4)


def test_the_gradient_norm_is_that_before_clipping(model_config):
    _, _, clipped = gradients_of(model_config(), Precision("fp32", CPU), 0.05)
    model, _, norm = gradients_of(model_config(), Precision("fp32", CPU), 1e9)
    assert norm == clipped
    assert norm == pytest.approx(norm_of(model), rel=1e-5)


def test_an_fp16_update_is_that_of_the_unscaled_gradients(model_config):
    """AdamW's first step hides a constant factor, so its moments are compared."""
    moments = []
    for name in ("fp32", "fp16"):
        precision = Precision(name, CPU)
        model, optimizer, _ = gradients_of(model_config(), precision)
        update(optimizer, precision, [1e-3])
        state = optimizer.state[model.token_embedding.weight]
        moments.append((state["exp_avg"].norm().item(), state["exp_avg_sq"].sum().item()))
    assert moments[1] == pytest.approx(moments[0], rel=0.01)


def test_a_nan_norm_makes_the_scaler_skip_the_update_and_halve_the_scale(model_config):
    precision = Precision("fp16", CPU)
    model, optimizer, _ = gradients_of(model_config(), precision)
    update(optimizer, precision, [1e-3])
    before = {name: value.clone() for name, value in model.state_dict().items()}
    steps = {number: state["step"].item() for number, state in enumerate(optimizer.state.values())}
    backward(model, precision, batch_for(model_config()))
    clip_gradients(optimizer, 1.0, torch.tensor(math.nan))
    update(optimizer, precision, [1e-3])
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert {n: s["step"].item() for n, s in enumerate(optimizer.state.values())} == steps
    assert precision.scaler.get_scale() == 65536.0 / 2
    assert all(parameter.grad is None for parameter in model.parameters())


def reference_step(weight, grads, rate, cfg):
    """AdamW by its definition (Loshchilov and Hutter 2019, algorithm 2), in float64."""
    weight, m, v = weight.double(), 0.0, 0.0
    first, second = cfg.betas
    for step, grad in enumerate(grads, 1):
        grad = grad.double()
        m = first * m + (1 - first) * grad
        v = second * v + (1 - second) * grad**2
        m_hat, v_hat = m / (1 - first**step), v / (1 - second**step)
        weight = weight - rate * (m_hat / (v_hat.sqrt() + 1e-8) + cfg.weight_decay * weight)
    return weight


@pytest.mark.parametrize("betas", [(0.9, 0.999), (0.5, 0.9)])
@pytest.mark.parametrize("weight_decay", [0.0, 0.3])
def test_updates_are_those_of_adamw_with_the_configs_betas_and_decay(betas, weight_decay):
    cfg = optim(betas=betas, weight_decay=weight_decay)
    generator = torch.Generator().manual_seed(0)
    model = torch.nn.Linear(5, 7, bias=False)
    start = model.weight.detach().clone()
    grads = [torch.randn(7, 5, generator=generator) for _ in range(4)]
    optimizer = make_optimizer(model, cfg)
    for grad in grads:
        model.weight.grad = grad.clone()
        update(optimizer, Precision("fp32", CPU), [0.01])
    expected = reference_step(start, grads, 0.01, cfg)
    torch.testing.assert_close(model.weight.double(), expected, rtol=1e-5, atol=1e-6)


GROUPS = (
    {"match": "q_proj", "learning_rate": 0.5, "warmup_steps": 0},
    {"match": "ln1", "learning_rate": 0.2, "warmup_steps": 2},
)


def test_groups_have_schedules_of_their_own(model_config):
    from oelm_lib.model.gpt import GPT

    cfg, model = optim(groups=GROUPS, weight_decay=0.5), GPT(model_config())
    optimizer = make_optimizer(model, cfg)
    rates = learning_rates(0, cfg, 100)
    assert rates == pytest.approx([1e-4, 0.5, 0.1])
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    update(optimizer, Precision("fp32", CPU), rates)
    for name, parameter in model.named_parameters():
        rate = 0.5 if "q_proj" in name else 0.1 if "ln1" in name else 1e-4
        assert torch.allclose(parameter, before[name] * (1 - rate * 0.5)), name


def test_a_group_without_parameters_is_refused_with_names(model_config):
    from oelm_lib.model.gpt import GPT

    wrong = optim(groups=({"match": "query", "learning_rate": 0.5, "warmup_steps": 0},))
    with pytest.raises(UserError, match=r"'query' matches no trainable parameter.*token_embedding"):
        make_optimizer(GPT(model_config()), wrong)


def test_a_run_that_is_not_compiled_does_not_import_the_compiler():
    """torch._dynamo takes 3 s to import."""
    code = """
import sys, torch
from oelm_lib.config import OptimConfig
from oelm_lib.training.optim import backward, clip_gradients, gradient_norm
from oelm_lib.training.optim import make_optimizer, update
from oelm_lib.training.precision import Precision
cfg = OptimConfig(learning_rate=1e-3, min_learning_rate=0, warmup_steps=0, weight_decay=0,
                  betas=(0.9, 0.9), grad_clip=1.0, groups=())
class Model(torch.nn.Linear):
    def forward(self, x, y):
        return None, super().forward(x).sum()
model, precision = Model(2, 2), Precision("fp32", torch.device("cpu"))
optimizer = make_optimizer(model, cfg)
backward(model, precision, (torch.ones(2), None))
clip_gradients(optimizer, 1.0, gradient_norm(optimizer, precision))
update(optimizer, precision, [1e-3])
optimizer.load_state_dict(optimizer.state_dict())
assert "torch._dynamo" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", code], check=True)
