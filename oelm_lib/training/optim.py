"""AdamW, the learning-rate schedule, and the parts of one optimizer step."""

import inspect
import math

import torch
from torch import Tensor, nn

from oelm_lib.config import OptimConfig
from oelm_lib.errors import UserError
from oelm_lib.training.precision import Precision


class AdamW(torch.optim.AdamW):
    """torch's AdamW without the decorators that import `torch._dynamo` at their first call.

    No optimizer is compiled here, so they are not needed. The time from the start of Python to the
    first step is 3.5 CPU seconds without them and 7.6 with them (medians of 3).
    """


for _name in ("zero_grad", "add_param_group", "state_dict", "load_state_dict"):
    setattr(AdamW, _name, inspect.unwrap(getattr(torch.optim.AdamW, _name)))
AdamW.step = torch.no_grad()(inspect.unwrap(torch.optim.AdamW.step))


def make_optimizer(model: nn.Module, cfg: OptimConfig) -> AdamW:
    """Return fused AdamW over the trainable tensors; weight decay applies to all, as in the log.

    The first parameter group has the common schedule, the others those of `cfg.groups`.

    Raises:
        UserError: A group has no trainable parameter.
    """
    common = {name: p for name, p in model.named_parameters() if p.requires_grad}
    groups = []
    for group in cfg.groups:
        names = [name for name in common if group.match.search(name)]
        if not names:
            raise UserError(
                f"optim.groups: {group.match.pattern!r} matches no trainable parameter that is"
                f" left; names are such as {', '.join(list(common)[:4])}"
            )
        groups.append({"params": [common.pop(name) for name in names]})
    groups.insert(0, {"params": list(common.values())})
    return AdamW(
        groups, lr=cfg.learning_rate, betas=cfg.betas, weight_decay=cfg.weight_decay, fused=True
    )


def learning_rates(step: int, cfg: OptimConfig, max_steps: int) -> list[float]:
    """Return the learning rate of each parameter group at step 0, 1, ..."""
    low = cfg.min_learning_rate
    return [
        learning_rate(step, schedule.learning_rate, low, schedule.warmup_steps, max_steps)
        for schedule in (cfg, *cfg.groups)
    ]


def learning_rate(step: int, peak: float, low: float, warmup_steps: int, max_steps: int) -> float:
    """Return the rate at step 0, 1, ...: linear warm-up to `peak`, then a cosine to `low`.

    Args:
        low: Rate at step `max_steps`.
    """
    if step < warmup_steps:
        return peak * (step + 1) / warmup_steps
    progress = (step - warmup_steps) / max(max_steps - warmup_steps, 1)
    cosine = 0.5 * (1 + math.cos(math.pi * min(progress, 1.0)))
    return low + (peak - low) * cosine


def backward(model: nn.Module, precision: Precision, batch: tuple[Tensor, Tensor]) -> Tensor:
    """Run forward and backward on one batch; return the loss, detached, on the device."""
    with precision.autocast():
        _, loss = model(*batch)
    precision.scaler.scale(loss).backward()
    return loss.detach()


def gradient_norm(optimizer: torch.optim.Optimizer, precision: Precision) -> Tensor:
    """Return the norm of all gradients, without the loss scale, on the device."""
    grads = [p.grad for p in _parameters(optimizer) if p.grad is not None]
    return nn.utils.get_total_norm(grads) / precision.loss_scale()


def clip_gradients(optimizer: torch.optim.Optimizer, max_norm: float, norm: Tensor) -> None:
    """Scale the gradients so that a norm above `max_norm` becomes `max_norm`.

    Args:
        norm: Their norm without the loss scale. NaN makes all of them NaN, so that the scaler
            skips the update.
    """
    nn.utils.clip_grads_with_norm_(_parameters(optimizer), max_norm, norm)


def update(optimizer: torch.optim.Optimizer, precision: Precision, rates: list[float]) -> None:
    """Apply the gradients at each group's learning rate and clear them."""
    for group, rate in zip(optimizer.param_groups, rates, strict=True):
        group["lr"] = rate
    precision.scaler.step(optimizer)
    precision.scaler.update()
    optimizer.zero_grad(set_to_none=True)


def _parameters(optimizer: torch.optim.Optimizer) -> list[nn.Parameter]:
    return [p for group in optimizer.param_groups for p in group["params"]]
