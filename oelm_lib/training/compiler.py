"""torch.compile of the training step: where it is used, and how its work is done beforehand."""

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from oelm_lib.training import distributed

WARM_UP_CALLS = 3
"""Calls until a CUDA graph is replayed: one to warm up, one to record, one to replay."""


def is_enabled(choice: str, device: torch.device) -> bool:
    """Whether `machine.compile` means compiled on this device; auto: on a GPU."""
    return choice == "on" or (choice == "auto" and device.type == "cuda")


def compile_model(model: nn.Module, device: torch.device) -> nn.Module:
    """Return the model compiled for one shape of batch; with CUDA graphs on a single GPU."""
    graphs = device.type == "cuda" and distributed.size() == 1
    return compile_anew(model, "reduce-overhead" if graphs else "default", fullgraph=True)


def compile_anew(function: Callable[..., Any], mode: str, fullgraph: bool = False) -> Any:
    """Return a function or model compiled for one shape of its arguments.

    Earlier compilations are discarded: torch recompiles a function at most eight times, and a
    process that trains or measures many models would exceed that.
    """
    torch.compiler.reset()
    return torch.compile(function, fullgraph=fullgraph, dynamic=False, mode=mode)


def warm_up(step: Callable[[], None], device: torch.device) -> None:
    """Run forward and backward until compiled; the states of random generators are kept."""
    devices = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices):
        for _ in range(WARM_UP_CALLS):
            start_step(device)
            step()


def start_step(device: torch.device) -> None:
    """Tell CUDA graphs that the results of the step before are no longer used."""
    if device.type == "cuda":
        torch.compiler.cudagraph_mark_step_begin()
