"""Cores of this process; GPUs as the driver shows them, and whether torch can use them."""

import contextlib
import functools
import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from oelm_lib.errors import UserError

VISIBLE_DEVICES = "CUDA_VISIBLE_DEVICES"
GPU_FLOPS = {"A5000": 111e12, "A100": 312e12, "H100": 989e12, "H200": 989e12}
"""GPU -> its dense fp16 peak in FLOP/s, from the vendor's data sheets."""


@dataclass(frozen=True)
class TorchBuild:
    """What decides whether torch can use a GPU."""

    version: str
    """torch.__version__."""
    cuda: str | None
    """CUDA version that torch was built with; None for a CPU build."""
    devices: int
    """GPUs that torch can use."""
    error: str = ""
    """What torch said when it was asked to initialise CUDA."""


def available_cores() -> int:
    """Return how many cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def open_nvml() -> Any:
    """Return the initialised NVML binding. Raises UserError where there is no GPU driver."""
    import pynvml

    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError as error:
        raise UserError(f"no GPU: {error}; check nvidia-smi") from None
    return pynvml


def visible_gpus(nvml: Any) -> list[str]:
    """Return the GPUs that CUDA_VISIBLE_DEVICES allows, as numbers, UUIDs or MIG names.

    As in CUDA, an unset variable allows all, an empty one none, and the list ends at its first
    invalid entry (such as -1).

    Raises:
        UserError: The driver does not tell how many there are.
    """
    numbers = [str(number) for number in range(_count_gpus(nvml))]
    value = os.environ.get(VISIBLE_DEVICES)
    if value is None:
        return numbers
    allowed: list[str] = []
    for entry in (part.strip() for part in value.split(",")):
        if entry not in numbers and not entry.startswith(("GPU-", "MIG-")):
            break
        if entry not in allowed:
            allowed.append(entry)
    return allowed


@functools.cache
def largest_gpu_memory() -> int:
    """Return the bytes of the largest GPU that CUDA_VISIBLE_DEVICES allows; 0 where none is."""
    try:
        nvml = open_nvml()
        gpus = visible_gpus(nvml)
    except UserError:
        return 0
    largest = 0
    for gpu in gpus:
        with contextlib.suppress(UserError):  # a GPU that is gone or lost
            memory = query_gpu(nvml, "nvmlDeviceGetMemoryInfo", gpu)
            largest = max(largest, memory.total if memory else 0)
    return largest


def gpu_handle(nvml: Any, gpu: str) -> Any:
    """Return NVML's handle of a GPU given by number, by UUID (or its start) or by MIG name.

    Raises:
        UserError: There is no such GPU, or the driver has lost it.
    """
    count = _count_gpus(nvml)
    if gpu.isascii() and gpu.isdecimal() and int(gpu) < count:
        with _driver_errors(nvml, f"GPU {gpu}"):
            return nvml.nvmlDeviceGetHandleByIndex(int(gpu))
    if gpu.startswith("GPU-"):
        for number in range(count):
            with contextlib.suppress(nvml.NVMLError):  # one that is lost; it may be another one
                handle = nvml.nvmlDeviceGetHandleByIndex(number)
                if nvml.nvmlDeviceGetUUID(handle).startswith(gpu):
                    return handle
    if gpu.startswith("MIG-"):
        with contextlib.suppress(nvml.NVMLError):
            return nvml.nvmlDeviceGetHandleByUUID(gpu)
    numbers = ", ".join(map(str, range(count))) or "none"
    raise UserError(f"GPU {gpu!r} does not exist; allowed here: {numbers}, a UUID or auto")


def query_gpu(nvml: Any, function: str, gpu: str) -> Any:
    """Return what NVML's function of that name answers; None where the GPU does not support it.

    Args:
        gpu: As for gpu_handle.

    Raises:
        UserError: There is no such GPU, or the driver answers with another error.
    """
    handle = gpu_handle(nvml, gpu)
    with _driver_errors(nvml, f"GPU {gpu}"), contextlib.suppress(nvml.NVMLError_NotSupported):
        return getattr(nvml, function)(handle)


def _count_gpus(nvml: Any) -> int:
    """Return the number of GPUs. Raises UserError where the driver does not tell."""
    with _driver_errors(nvml, "GPU"):
        return nvml.nvmlDeviceGetCount()


@contextlib.contextmanager
def _driver_errors(nvml: Any, what: str) -> Iterator[None]:
    """Turn an error of NVML in the block into a UserError: `WHAT: the driver says ...`."""
    try:
        yield
    except nvml.NVMLError as error:
        raise UserError(f"{what}: the driver says {error}; check nvidia-smi") from None


def torch_problem(gpus: list[str], build: TorchBuild) -> str | None:
    """Return why torch cannot use the GPUs that the driver shows, with the remedy.

    Args:
        gpus: The GPUs that this process may use, as visible_gpus returns them.

    Returns:
        One line, or None where torch can use a GPU or none is visible.
    """
    if build.devices or not gpus:
        return None
    shown = f"the driver shows {len(gpus)} GPU{'s' * (len(gpus) > 1)}, but torch {build.version}"
    if build.cuda is None:
        return f"{shown} is a CPU build; install a CUDA build of it"
    if "driver" in build.error and "too old" in build.error:
        remedy = f"update the driver, or install a torch built with an older CUDA than {build.cuda}"
        return f"{shown} needs a newer driver than this one; {remedy}"
    reason = build.error.strip().splitlines()[0] if build.error.strip() else "finds none"
    return f"{shown} cannot use it ({reason}); check nvidia-smi and the driver's version"
