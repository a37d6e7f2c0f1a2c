"""Device and number format of a run."""

import ctypes
from collections.abc import Callable
from typing import Any

import torch

from oelm_lib.errors import UserError
from oelm_lib.gpus import TorchBuild, open_nvml, torch_problem, visible_gpus

M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4
"""Names of glibc's malloc.h."""


class Precision:
    """Autocast type of the forward pass and the gradient scaler that belongs to it.

    name: fp32, bf16 or fp16 to the letter, fp16 on a CPU included (slow there, for tests).
    """

    def __init__(self, name: str, device: torch.device):
        self.name, self.device = name, device
        self.scaler = torch.amp.GradScaler(device.type, enabled=name == "fp16")

    def autocast(self) -> torch.autocast:
        """Context of the training forward pass; evaluation stays outside and is fp32."""
        dtype = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[self.name]
        return torch.autocast(self.device.type, dtype, enabled=self.name != "fp32")


def resolve_precision(name: str, device: torch.device) -> tuple[Precision, str | None]:
    """What an experiment's precision means on this device, and a warning where that is something else."""
    if name == "fp16" and device.type == "cpu":
        return Precision("fp32", device), "train.precision is fp16, but on a CPU that means fp32"
    if name == "auto":
        name = "bf16" if device.type == "cuda" and torch.cuda.is_bf16_supported() else "fp32"
    return Precision(name, device), None


def keep_freed_memory() -> None:
    """Let the process keep what it frees, for the next step to take; without glibc nothing happens.

    By default glibc returns each tensor of 32 MiB or more to the system and faults it in again page by page, which
    takes seven times as long as writing it once.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt:
        mallopt(M_MMAP_MAX, 0)
        mallopt(M_TRIM_THRESHOLD, -1)


def torch_build() -> TorchBuild:
    """Return what decides whether this torch can use a GPU."""
    error = ""
    try:
        torch.cuda.init()
    except (RuntimeError, AssertionError) as problem:
        error = str(problem)
    devices = 0 if error else torch.cuda.device_count()
    return TorchBuild(torch.__version__, torch.version.cuda, devices, error)


def gpu_problem(
    open_driver: Callable[[], Any] = open_nvml,
    read_build: Callable[[], TorchBuild] = torch_build,
) -> str | None:
    """Return why torch cannot use the GPUs that the driver shows, or None."""
    try:
        gpus = visible_gpus(open_driver())
    except UserError:
        return None
    return torch_problem(gpus, read_build())


def resolve_device(name: str) -> torch.device:
    """The torch device for auto, cpu, cuda or cuda:N. Raises UserError where it is not there."""
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if name == "auto":
        return torch.device("cuda" if count else "cpu")
    device = torch.device(name)
    if device.type == "cuda" and (device.index or 0) >= count:
        found = ", ".join(f"cuda:{i}" for i in range(count)) or "no GPU that torch can use"
        remedy = gpu_problem() or "check nvidia-smi"
        raise UserError(
            f"machine.device = {name}: found {found}; allowed here: cpu, auto; {remedy}"
        )
    return device


def device_name(device: torch.device) -> str:
    """Name of the GPU, or cpu."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"
