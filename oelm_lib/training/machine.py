"""What a run was trained on."""

import contextlib
import math
import os
import platform
import time
from pathlib import Path
from typing import Any

import torch

KERNEL_SHAPE = (2048, 128, 512)
"""Matrix product by which the speed of a machine's kernels is recorded."""


def describe_machine() -> dict[str, Any]:
    """Return the CPU, torch's vector instructions, and how fast one thread multiplies matrices.

    Torch keeps to one thread afterwards.

    The last tells kernels apart that one library chooses by machine and environment.
    """
    torch.set_num_threads(1)
    rows, inner, columns = KERNEL_SHAPE
    a, b = torch.randn(rows, inner), torch.randn(inner, columns)
    best = math.inf
    for _ in range(20):
        start = time.perf_counter()
        a @ b
        best = min(best, time.perf_counter() - start)
    return {
        "cpu": _cpu_name(),
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "gflops": round(2 * rows * inner * columns / best / 1e9),
        "preload": os.path.basename(os.environ.get("LD_PRELOAD", "")),
    }


def _cpu_name() -> str:
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
