"""Device of a run: which one, its threads, its memory allocator, and what a study records of it."""

import contextlib
import ctypes
import os
import time
import timeit
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch

from oelm_lib.config import MachineConfig
from oelm_lib.errors import UserError
from oelm_lib.hardware import TorchBuild, open_nvml, torch_problem, visible_gpus
from oelm_lib.runs.provenance import cpu_name

M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4
"""Names of glibc's malloc.h."""
THREAD_LIMIT = 64
"""Most threads allowed on a machine of fewer cores; on others, one thread per core."""
CUBLAS_WORKSPACE = ":4096:8"
"""Workspace with which cuBLAS adds in the same order each time."""
KERNEL_SHAPE = (2048, 128, 512)
"""Matrix product by which the speed of a machine's kernels is recorded."""


def prepare_device(machine: MachineConfig) -> torch.device:
    """Select the device; apply thread count and allocator settings to this process.

    Raises:
        UserError: The device is not there, or the thread count is out of range.
    """
    device = resolve_device(machine.device)
    set_threads(machine.threads)
    # cuBLAS reads it once in a process, at its first product: a later run may be deterministic.
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", CUBLAS_WORKSPACE)
    # Only where it changes: torch imports its compiler to set it.
    if machine.deterministic != torch.are_deterministic_algorithms_enabled():
        torch.use_deterministic_algorithms(machine.deterministic)
    if device.type == "cuda":
        torch.cuda.set_device(device)
        # Evaluation is fp32, also where TORCH_ALLOW_TF32_CUBLAS_OVERRIDE asks for TF32.
        torch.set_float32_matmul_precision("highest")
    else:
        keep_freed_memory()
    return device


def resolve_device(name: str) -> torch.device:
    """Return the torch device for auto, cpu, cuda or cuda:N.

    Raises:
        UserError: The device is not there.
    """
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if name == "cpu" or (name == "auto" and not count):
        return torch.device("cpu")
    index = int(name.partition(":")[2] or 0)
    if index >= count:
        found = ", ".join(f"cuda:{i}" for i in range(count)) or "no GPU that torch can use"
        remedy = gpu_problem() or "check nvidia-smi and CUDA_VISIBLE_DEVICES"
        raise UserError(
            f"machine.device = {name}: found {found}; allowed here: cpu, auto; {remedy}"
        )
    return torch.device("cuda", index)


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


def device_name(device: torch.device) -> str:
    """Return the name of the GPU, or cpu."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"


@contextlib.contextmanager
def memory_errors(what: str | Path) -> Iterator[None]:
    """Turn torch's error about a full GPU in the block into a UserError: `WHAT: CUDA ...`."""
    try:
        yield
    except torch.OutOfMemoryError as error:
        # Its sentences: what failed, the bytes it needed, the GPU's total and free memory, and more
        # about who holds it and how torch can be tuned.
        found = ". ".join(str(error).split(". ")[:3])
        raise UserError(
            f"{what}: {found}; lower train.batch_size, or use a GPU that nobody else uses:"
            " oelm run ID --gpus auto --wait-idle"
        ) from None


def is_asynchronous(device: torch.device) -> bool:
    """Whether work on the device is queued, so that the host waits when it reads a number."""
    return device.type != "cpu"


def set_threads(count: int) -> None:
    """Set torch's CPU threads; 0 keeps torch's choice.

    Raises:
        UserError: More threads than a process can start.
    """
    limit = max(THREAD_LIMIT, os.cpu_count() or 1)
    if count > limit:
        raise UserError(
            f"machine.threads = {count}: this machine has {os.cpu_count()} cores;"
            f" allowed: 1 .. {limit}, or 0 for torch's choice"
        )
    if count:
        torch.set_num_threads(count)


def keep_freed_memory() -> None:
    """Let the process keep the memory it frees, for the next step; without glibc, do nothing.

    By default glibc returns each tensor of 32 MiB or more to the system and faults it in again
    page by page, which takes seven times as long as writing it once.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt:
        mallopt(M_MMAP_MAX, 0)
        mallopt(M_TRIM_THRESHOLD, -1)


def describe_machine() -> dict[str, Any]:
    """Return the CPU, torch's vector instructions, and how fast one thread multiplies matrices.

    The speed shows which matrix kernel the library chose here.

    Torch keeps to one thread afterwards.
    """
    torch.set_num_threads(1)
    rows, inner, columns = KERNEL_SHAPE
    a, b = torch.randn(rows, inner), torch.randn(inner, columns)
    best = min(timeit.repeat(lambda: a @ b, number=1, repeat=20, timer=time.perf_counter))
    return {
        "cpu": cpu_name(),
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "gflops": round(2 * rows * inner * columns / best / 1e9),
        "preload": os.path.basename(os.environ.get("LD_PRELOAD", "")),
    }
