"""Several processes for one run: each takes its rows of every batch, and gradients are averaged.

The batch is not enlarged, so gradients and losses equal those of one process; only dropout masks
differ. With one process, each function here does nothing.
"""

import torch
from torch import Tensor, distributed, nn


def size() -> int:
    """Return the number of processes of this run."""
    return distributed.get_world_size() if distributed.is_initialized() else 1


def rank() -> int:
    """Return the number of this process; 0 keeps the record of the run."""
    return distributed.get_rank() if distributed.is_initialized() else 0


def shard(batch: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    """Return this process' rows of a batch: tokens and targets, each (B / processes, T)."""
    tokens, targets = batch
    return tokens.chunk(size())[rank()], targets.chunk(size())[rank()]


def parallel(model: nn.Module) -> nn.Module:
    """Return the model with gradients averaged over the processes; frozen tensors are not sent."""
    # Every process makes or loads the same weights, so none need be sent at the start.
    return model if size() == 1 else nn.parallel.DistributedDataParallel(model, init_sync=False)


def mean(value: Tensor) -> Tensor:
    """Return the mean of a scalar over the processes."""
    if size() == 1:
        return value
    total = value.clone()
    distributed.all_reduce(total)
    return total / size()


def agree(stop: bool, step: int, interval: int, device: torch.device) -> bool:
    """Return rank 0's `stop` in every process.

    The broadcast makes the host wait for the device, so several processes exchange it only at
    multiples of `interval`; at other steps the result is False.
    """
    if size() == 1:
        return stop
    if step % interval:
        return False
    answer = torch.tensor(int(stop), device=device)
    distributed.broadcast(answer, 0)
    return bool(answer)
