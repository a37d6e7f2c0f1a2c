"""GPUs for a queue: the ones a user names, and whether others have left them."""

import time
from collections.abc import Callable
from typing import Any

import psutil

from oelm_lib.errors import UserError
from oelm_lib.hardware import gpu_handle, query_gpu, visible_gpus

IDLE_SECONDS = 60.0
"""How long a GPU must have been idle before it is used: jobs of others pause between epochs."""
FREE_SHARE = 0.05
"""Share of a GPU's memory that the driver itself may hold."""


def choose_gpus(text: str, nvml: Any) -> list[str]:
    """Return the GPUs meant by `auto` (all that CUDA_VISIBLE_DEVICES allows) or by "2,3".

    Raises:
        UserError: A named GPU does not exist, or there is none.
    """
    if text == "auto":
        chosen = visible_gpus(nvml)
        if not chosen:
            raise UserError(
                "--gpus auto: CUDA_VISIBLE_DEVICES allows no GPU of this machine; unset it, name"
                " GPUs as in --gpus 0,1, or use --workers N on the CPU"
            )
        return chosen
    chosen = list(dict.fromkeys(part.strip() for part in text.split(",") if part.strip()))
    if not chosen:
        raise UserError(f"--gpus {text}: no GPU named; use auto, or numbers as in --gpus 0,1")
    for gpu in chosen:
        try:
            gpu_handle(nvml, gpu)
        except UserError as error:
            raise UserError(f"--gpus {text}: {error}; see nvidia-smi") from None
    return chosen


class IdleWatch:
    """Tells whether GPUs that this process does not use have been idle for IDLE_SECONDS.

    Args:
        nvml: hardware.open_nvml(), or an object with its functions.
        clock: Returns seconds that only grow.
    """

    def __init__(self, nvml: Any, clock: Callable[[], float] = time.monotonic):
        self._nvml, self._clock = nvml, clock
        self._idle_since: dict[str, float] = {}

    def reason(self, gpu: str) -> str | None:
        """Return why the GPU cannot be used now, or None. Every call counts as one observation."""
        usage = self._usage(gpu)
        if usage:
            self._idle_since.pop(gpu, None)
            return f"GPU {gpu}: {usage}"
        since = self._idle_since.setdefault(gpu, self._clock())
        if self._clock() - since >= IDLE_SECONDS:
            return None
        return f"GPU {gpu}: idle, watched for {IDLE_SECONDS:.0f} s"

    def forget(self, gpu: str) -> None:
        """Start to watch the GPU anew, since a run of ours uses it now."""
        self._idle_since.pop(gpu, None)

    def _usage(self, gpu: str) -> str | None:
        """Return who uses a GPU, or None. Raises UserError where the driver does not report it."""
        handle = gpu_handle(self._nvml, gpu)
        processes = query_gpu(self._nvml, "nvmlDeviceGetComputeRunningProcesses", handle)
        if processes:
            return f"used by {', '.join(_owner(process.pid) for process in processes)}"
        memory = query_gpu(self._nvml, "nvmlDeviceGetMemoryInfo", handle)
        if memory is None and processes is None:
            raise UserError(
                f"GPU {gpu}: the driver reports neither processes nor memory; leave out --wait-idle"
            )
        # In a container the processes of others can be hidden, but their memory is not.
        if memory is not None and memory.used > FREE_SHARE * memory.total:
            return f"{memory.used / 2**30:.1f} of {memory.total / 2**30:.1f} GiB in use"
        return None


def _owner(pid: int) -> str:
    """Return a process number with its user where that is known."""
    try:
        return f"process {pid} ({psutil.Process(pid).username()})"
    except (psutil.Error, KeyError):
        return f"process {pid}"
