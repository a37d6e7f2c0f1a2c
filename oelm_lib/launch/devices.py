"""Which GPUs there are, and which are free: the driver is asked through NVML, over a while, not once."""

import os
import time
from collections.abc import Callable
from typing import Any

import psutil

from oelm_lib.errors import UserError

IDLE_SECONDS = 60.0
"""How long a GPU must have been free before it is taken: jobs of others pause between epochs."""
FREE_SHARE = 0.05
"""Share of a GPU's memory that the driver itself may hold."""


def open_nvml() -> Any:
    """The NVML binding, initialised. Raises UserError where there is no GPU to ask about."""
    try:
        import pynvml
    except ImportError:
        raise UserError(
            "--gpus needs the package nvidia-ml-py; install it, or use --workers N on the CPU"
        ) from None
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError as error:
        raise UserError(
            f"no GPU: {error}; check nvidia-smi, or use --workers N on the CPU"
        ) from None
    return pynvml


def choose_gpus(text: str, nvml: Any) -> list[str]:
    """The GPU numbers meant by `auto` (all that CUDA_VISIBLE_DEVICES allows) or by text such as "2,3".

    Raises:
        UserError: A number is not one of this machine's GPUs.
    """
    there = [str(number) for number in range(nvml.nvmlDeviceGetCount())]
    asked = os.environ.get("CUDA_VISIBLE_DEVICES") or ",".join(there) if text == "auto" else text
    chosen = list(dict.fromkeys(part.strip() for part in asked.split(",") if part.strip()))
    wrong = [number for number in chosen if number not in there]
    if wrong or not chosen:
        found = f"GPU {wrong[0]!r} isn't there" if wrong else "no GPU named"
        raise UserError(
            f"--gpus {text}: {found}; allowed here: {', '.join(there) or 'none'} or auto; see nvidia-smi"
        )
    return chosen


class IdleWatch:
    """Says of GPUs that this process does not use whether they have been free for a while.

    Args:
        nvml: open_nvml(), or an object with its functions.
        clock: Seconds that only grow.
    """

    def __init__(self, nvml: Any, clock: Callable[[], float] = time.monotonic):
        self._nvml, self._clock = nvml, clock
        self._free_since: dict[str, float] = {}

    def reason(self, gpu: str) -> str | None:
        """Why the GPU can't be taken now, or None; to be asked again and again, as every look counts."""
        found = self._in_use(gpu)
        if found:
            self._free_since.pop(gpu, None)
            return f"GPU {gpu}: {found}"
        since = self._free_since.setdefault(gpu, self._clock())
        return (
            None
            if self._clock() - since >= IDLE_SECONDS
            else f"GPU {gpu}: free, watched for {IDLE_SECONDS:.0f} s"
        )

    def taken(self, gpu: str) -> None:
        """Forget that the GPU was free."""
        self._free_since.pop(gpu, None)

    def _in_use(self, gpu: str) -> str | None:
        device = self._nvml.nvmlDeviceGetHandleByIndex(int(gpu))
        pids = [process.pid for process in self._nvml.nvmlDeviceGetComputeRunningProcesses(device)]
        if pids:
            return f"used by {', '.join(map(_owner, pids))}"
        memory = self._nvml.nvmlDeviceGetMemoryInfo(device)
        # In a container the processes of others may not be seen, but their memory is.
        if memory.used > FREE_SHARE * memory.total:
            return f"{memory.used / 2**30:.1f} of {memory.total / 2**30:.1f} GiB in use"
        return None


def _owner(pid: int) -> str:
    try:
        return f"process {pid} ({psutil.Process(pid).username()})"
    except (psutil.Error, KeyError):
        return f"process {pid}"
