"""AdamW, the learning-rate schedule, and one step."""

import inspect
import math
import re

import torch
from torch import Tensor, nn

from oelm_lib.config import OptimConfig
from oelm_lib.errors import UserError
from oelm_lib.training.distributed import mean
from oelm_lib.training.precision import Precision


class AdamW(torch.optim.AdamW):
    """torch's AdamW, but for the wrappers that import all of torch.compile (3 s) to keep it out of these methods."""

    step = torch.no_grad()(inspect.unwrap(torch.optim.AdamW.step))
    zero_grad = inspect.unwrap(torch.optim.AdamW.zero_grad)
    add_param_group = inspect.unwrap(torch.optim.AdamW.add_param_group)
    state_dict = inspect.unwrap(torch.optim.AdamW.state_dict)
    load_state_dict = inspect.unwrap(torch.optim.AdamW.load_state_dict)


def make_optimizer(model: nn.Module, cfg: OptimConfig) -> AdamW:
    """Fused AdamW over the trainable tensors only; decay on all of them, as in the log.

    Its first group has the common schedule, the others those of `cfg.groups`.

    Raises:
        UserError: A group has no trainable parameter.
    """
    common = {name: p for name, p in model.named_parameters() if p.requires_grad}
    groups = []
    for group in cfg.groups:
        names = [name for name in common if re.search(group.match, name)]
        if not names:
            raise UserError(
                f"optim.groups: {group.match!r} matches no trainable parameter that is left; names are such as"
                f" {', '.join(list(common)[:4])}"
            )
        groups.append({"params": [common.pop(name) for name in names]})
    groups.insert(0, {"params": list(common.values())})
    return AdamW(
        groups, lr=cfg.learning_rate, betas=cfg.betas, weight_decay=cfg.weight_decay, fused=True
    )


def learning_rates(step: int, cfg: OptimConfig, max_steps: int) -> list[float]:
    """The rate of each of the optimizer's groups at step 0, 1, ..."""
    own = [
        cfg.model_copy(
            update={"learning_rate": group.learning_rate, "warmup_steps": group.warmup_steps}
        )
        for group in cfg.groups
    ]
    return [learning_rate(step, each, max_steps) for each in (cfg, *own)]


def learning_rate(step: int, cfg: OptimConfig, max_steps: int) -> float:
    """Rate of step 0, 1, ...: linear warm-up to the peak, then a cosine to min_learning_rate at max_steps."""
    if step < cfg.warmup_steps:
        return cfg.learning_rate * (step + 1) / cfg.warmup_steps
    progress = (step - cfg.warmup_steps) / max(max_steps - cfg.warmup_steps, 1)
    cosine = 0.5 * (1 + math.cos(math.pi * min(progress, 1.0)))
    return cfg.min_learning_rate + (cfg.learning_rate - cfg.min_learning_rate) * cosine


def gradients(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    precision: Precision,
    batch: tuple[Tensor, Tensor],
    clip: float,
) -> tuple[Tensor, Tensor]:
    """Forward and backward of one batch; returns (loss, gradient norm before clipping), both on the device."""
    with precision.autocast():
        _, loss = model(*batch)
    precision.scaler.scale(loss).backward()
    precision.scaler.unscale_(optimizer)
    norm = nn.utils.clip_grad_norm_(
        [p for group in optimizer.param_groups for p in group["params"]], clip
    )
    return mean(loss.detach()), norm


def update(optimizer: torch.optim.Optimizer, precision: Precision, rates: list[float]) -> None:
    """Apply the gradients at each group's learning rate and clear them; the scaler skips an overflowed update."""
    for group, rate in zip(optimizer.param_groups, rates, strict=True):
        group["lr"] = rate
    precision.scaler.step(optimizer)
    precision.scaler.update()
    optimizer.zero_grad(set_to_none=True)
