import pytest
import torch

from oelm_lib.config import OptimConfig
from oelm_lib.errors import UserError
from oelm_lib.training.evaluation import frozen_digest
from oelm_lib.training.optim import gradients, learning_rate, learning_rates, make_optimizer, update
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
    assert learning_rate(step, optim(), 100) == pytest.approx(expected, rel=1e-12)


def test_the_schedule_without_warm_up_and_with_one_as_long_as_the_run():
    assert learning_rate(0, optim(warmup_steps=0), 100) == 1e-3
    assert learning_rate(99, optim(warmup_steps=100), 100) == 1e-3
    assert learning_rate(49, optim(warmup_steps=100), 50) == pytest.approx(5e-4)
    assert learning_rate(
        99_000, optim(warmup_steps=1000, learning_rate=3e-4, min_learning_rate=0), 100_000
    ) == (
        pytest.approx(7.6e-8, rel=0.01)  # the log's rate at its last validation
    )


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
        loss, norm = gradients(model, optimizer, precision, batch_for(cfg), 1.0)
        assert norm.isfinite()
        update(optimizer, precision, [1e-2])
        losses.append(loss.item())
    assert losses[-1] < losses[0]
    assert frozen_digest(model) == (before, tensors)
    assert tensors == 4
    assert len(optimizer.state) == sum(parameter.requires_grad for parameter in model.parameters())


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


def test_an_fp16_overflow_is_skipped_and_halves_the_scale(model_config):
    from oelm_lib.model.gpt import GPT

    cfg = model_config()
    model, precision = GPT(cfg), Precision("fp16", CPU)
    optimizer = make_optimizer(model, optim())
    scale = precision.scaler.get_scale()
    gradients(model, optimizer, precision, batch_for(cfg), 1.0)
    update(optimizer, precision, [1e-3])
    before = model.token_embedding.weight.detach().clone()
    with precision.autocast():
        loss = model(*batch_for(cfg))[1]
    precision.scaler.scale(loss).backward()
    model.token_embedding.weight.grad[0, 0] = torch.inf
    precision.scaler.unscale_(optimizer)
    update(optimizer, precision, [1e-3])
    assert torch.equal(model.token_embedding.weight, before)
    assert precision.scaler.get_scale() == scale / 2


def test_updates_are_skipped_on_the_device_where_numbers_went_bad(model_config):
    from oelm_lib.model.gpt import GPT

    cfg = model_config()
    model, precision = GPT(cfg), Precision("fp32", CPU)
    optimizer = make_optimizer(model, optim())
    before = model.token_embedding.weight.detach().clone()
    gradients(model, optimizer, precision, batch_for(cfg), 1.0)
    optimizer.found_inf = torch.tensor(1.0)
    update(optimizer, precision, [1e-3])
    assert torch.equal(model.token_embedding.weight, before)


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
