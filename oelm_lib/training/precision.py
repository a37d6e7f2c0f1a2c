<<<<<<< HEAD
"""Number format of a run: autocast of the forward pass, scale of the loss."""
=======
"""Device and number format of a run."""

import ctypes
from collections.abc import Callable
from typing import Any
>>>>>>> h/launch

import torch
from torch import Tensor

<<<<<<< HEAD
from oelm_lib.training.device import is_asynchronous
=======
from oelm_lib.errors import UserError
from oelm_lib.gpus import TorchBuild, open_nvml, torch_problem, visible_gpus
>>>>>>> h/launch

NEVER = 2**31 - 1
"""Growth interval of a loss scale that stays as it is."""


class Precision:
    """Autocast type of the training forward pass and the `GradScaler` that belongs to it.

    The scaler skips an update whose gradients are not finite, without a read by the host. So it is
    enabled under fp16, where it also scales the loss, and at the constant scale 1 on a GPU. On a
    CPU the training loop reads the numbers itself before each update.

    Args:
        name: fp32, bf16 or fp16, taken literally: fp16 on a CPU too (slow there; used by tests).
    """

    def __init__(self, name: str, device: torch.device):
        self.name = name
        self.device = device
        if name == "fp16":
            self.scaler = torch.amp.GradScaler(device.type)
        else:
            self.scaler = torch.amp.GradScaler(
                device.type, init_scale=1.0, growth_interval=NEVER, enabled=is_asynchronous(device)
            )

    def autocast(self) -> torch.autocast:
        """Return the context of the training forward pass; evaluation stays outside, in fp32."""
        dtype = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[self.name]
        return torch.autocast(self.device.type, dtype, enabled=self.name != "fp32")

    def loss_scale(self) -> Tensor:
        """Return the factor by which the scaler multiplies the loss, a scalar on the device."""
        return self.scaler.scale(torch.ones((), device=self.device))


def resolve_precision(name: str, device: torch.device) -> tuple[Precision, str | None]:
    """Return what `train.precision` means on this device, and a warning where it is another one."""
    if name == "fp16" and device.type == "cpu":
        return Precision("fp32", device), "train.precision is fp16, but on a CPU that means fp32"
    if name == "auto":
        name = "bf16" if computes_bf16(device) else "fp32"
    return Precision(name, device), None


def computes_bf16(device: torch.device) -> bool:
    """Whether the device computes in bfloat16 itself.

    `torch.cuda.is_bf16_supported()` also counts emulation (V100, T4), which is slower than fp32,
    and asks the current device instead of this one.
    """
<<<<<<< HEAD
    if device.type != "cuda":
        return False
    return torch.version.hip is not None or torch.cuda.get_device_capability(device)[0] >= 8
=======
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
        raise UserError(f"machine.device = {name}: found {found}; allowed here: cpu, auto; {remedy}")
    return device


def device_name(device: torch.device) -> str:
    """Name of the GPU, or cpu."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"
>>>>>>> h/launch
