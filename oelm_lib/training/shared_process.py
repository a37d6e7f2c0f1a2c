"""One process of a run that several processes share, started by torch's elastic launch.

Rank 0 trains and keeps the record; the others make the same steps and write nothing.
"""

import datetime
import os
import sys

import torch
from torch import distributed
from torch.distributed.elastic.multiprocessing.errors import record

from oelm_lib import config
from oelm_lib.config import Experiment
from oelm_lib.data import open_corpus
from oelm_lib.errors import UserError
from oelm_lib.model.dropout import seed_dropout
from oelm_lib.runs.folder import Run, open_run
from oelm_lib.runs.names import run_folder
from oelm_lib.training.device import memory_errors
from oelm_lib.training.distributed import agree, rank
from oelm_lib.training.loop import train
from oelm_lib.training.state import resumed_state

TIMEOUT = datetime.timedelta(hours=6)
"""Longest wait of a process for the others; rank 0 evaluates and saves while they wait."""


def follow(cfg: Experiment, seed: int) -> None:
    """Make the steps of rank 0's `train`, from the same start to the same end."""
    corpus = open_corpus(cfg.data.corpus, cfg.data.tokenizer)
    state = resumed_state(Run(cfg, seed, corpus, run_folder(cfg, seed)))
    state.compile()
    while not state.is_last_step and not agree(
        False, state.step, cfg.machine.log_interval, state.device
    ):
        # From the step alone, so that a resumed run draws the same without a saved state.
        seed_dropout(seed, f" of rank {rank()} at step {state.step}")
        state.advance()


def main(exp: str, seed: int, overrides: str) -> None:
    """Run the process with the RANK and LOCAL_RANK of the environment."""
    cfg = config.load_config(exp, overrides)
    local = int(os.environ["LOCAL_RANK"])
    on_gpu = cfg.machine.device != "cpu" and torch.cuda.is_available()
    if on_gpu:
        if torch.cuda.device_count() < cfg.machine.devices:
            raise UserError(
                f"machine.devices = {cfg.machine.devices}: found {torch.cuda.device_count()} GPUs;"
                " ask for fewer"
            )
        torch.cuda.set_device(local)
        changes = {"machine.device": f"cuda:{local}"}
        cfg = config.load_config(exp, config.parse_overrides(overrides) | changes)
    distributed.init_process_group("nccl" if on_gpu else "gloo", timeout=TIMEOUT)
    if rank() == 0:
        train(open_run(cfg, seed))
    else:
        with memory_errors(f"{cfg.id}, process {rank()}"):
            follow(cfg, seed)
    distributed.destroy_process_group()


if __name__ == "__main__":
    try:
        record(main)(sys.argv[1], int(sys.argv[2]), sys.argv[3])  # reports errors to the launcher
    except UserError as error:
        sys.exit(f"UserError: {error}")
    # A thread of gloo that outlives Python's teardown aborts the process, and torch's launcher then
    # stops the others: leave without a teardown.
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)
