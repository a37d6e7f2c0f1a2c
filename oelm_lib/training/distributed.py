"""Several processes for one run: each takes its rows of every batch, rank 0 alone keeps the record.

`oelm run` starts this module through torch's elastic launch. The batch stays the experiment's, so gradients and
losses are those of one process; only dropout draws other numbers.
"""

import datetime
import os
import sys

import torch
from torch import Tensor, distributed, nn

from oelm_lib import config
from oelm_lib.config import Experiment
from oelm_lib.data import Batches, open_corpus
from oelm_lib.errors import UserError
from oelm_lib.runs.folder import Run, open_run
from oelm_lib.seeds import named_seed

TIMEOUT = datetime.timedelta(hours=6)
"""Longest wait of a process for the others; rank 0 evaluates and saves while they wait."""


def size() -> int:
    """Number of processes of this run."""
    return distributed.get_world_size() if distributed.is_initialized() else 1


class SharedBatches(Batches):
    """The rows of every batch that are this process' own."""

    def __call__(self, step: int) -> tuple[Tensor, Tensor]:
        """Tokens and targets, each (B / processes, T) int64, of step 0, 1, ..."""
        rank = distributed.get_rank() if size() > 1 else 0
        tokens, targets = super().__call__(step)
        return tokens.chunk(size())[rank], targets.chunk(size())[rank]


def parallel(model: nn.Module) -> nn.Module:
    """The model with gradients averaged over the processes; frozen tensors are never sent."""
    # Every process makes or loads the same weights, so none need be sent at the start.
    return model if size() == 1 else nn.parallel.DistributedDataParallel(model, init_sync=False)


def mean(value: Tensor) -> Tensor:
    """The mean of a scalar over the processes."""
    if size() > 1:
        distributed.all_reduce(value)
        value = value / size()
    return value


def agree(flag: bool, device: torch.device) -> bool:
    """What rank 0 says, in every process."""
    if size() == 1:
        return flag
    shared = torch.tensor(int(flag), device=device)
    distributed.broadcast(shared, 0)
    return bool(shared)


def follow(cfg: Experiment, seed: int) -> None:
    """Take part in the steps of rank 0's train, from the same start to the same end; writes nothing."""
    from oelm_lib.training import checkpoint
    from oelm_lib.training.session import Session

    path = config.outputs_dir() / cfg.folder / f"seed{seed}"
    session = Session(Run(cfg, seed, open_corpus(cfg.data.corpus, cfg.data.tokenizer), path))
    session.build(checkpoint.load_latest(path)[0])
    while session.step < cfg.train.max_steps and not agree(False, session.device):
        # From the step alone, so that a resumed run draws the same without a saved state.
        torch.manual_seed(
            named_seed(seed, f"dropout of rank {distributed.get_rank()} at step {session.step}")
        )
        session.advance()


def main(exp: str, seed: int, overrides: str) -> None:
    """Be one of the processes of a run, as the launcher's environment says which."""
    cfg = config.load_config(exp, overrides)
    rank, local = int(os.environ["RANK"]), int(os.environ["LOCAL_RANK"])
    on_gpu = cfg.machine.device != "cpu" and torch.cuda.is_available()
    if on_gpu:
        if torch.cuda.device_count() < cfg.machine.devices:
            found = torch.cuda.device_count()
            raise UserError(
                f"machine.devices = {cfg.machine.devices}: found {found} GPUs; ask for fewer"
            )
        torch.cuda.set_device(local)
        cfg = config.load_config(
            exp, config.parse_overrides(overrides) | {"machine.device": f"cuda:{local}"}
        )
    distributed.init_process_group("nccl" if on_gpu else "gloo", timeout=TIMEOUT)
    if rank == 0:
        from oelm_lib.training.loop import train

        train(cfg, open_run(cfg, seed))
    else:
        follow(cfg, seed)
    distributed.destroy_process_group()


if __name__ == "__main__":
    try:
        main(sys.argv[1], int(sys.argv[2]), sys.argv[3])
    except UserError as error:
        sys.exit(f"UserError: {error}")
