"""Number format of a run: autocast of the forward pass, scale of the loss."""

import torch
from torch import Tensor

from oelm_lib.training.device import is_asynchronous

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
    """Return the precision on this device, and a warning if it is not `train.precision`."""
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
    if device.type != "cuda":
        return False
    return torch.version.hip is not None or torch.cuda.get_device_capability(device)[0] >= 8
