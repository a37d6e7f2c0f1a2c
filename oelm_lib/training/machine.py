"""What a run was trained on."""

import math
import os
import time
from typing import Any

import torch

from oelm_lib.runs.provenance import cpu_name

KERNEL_SHAPE = (2048, 128, 512)
"""Matrix product by which the speed of a machine's kernels is recorded."""


def describe_machine() -> dict[str, Any]:
    """Return the CPU, torch's vector instructions, and how fast one thread multiplies matrices.

    The speed shows which matrix kernel the library chose here.

    Torch keeps to one thread afterwards.
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
        "cpu": cpu_name(),
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "gflops": round(2 * rows * inner * columns / best / 1e9),
        "preload": os.path.basename(os.environ.get("LD_PRELOAD", "")),
    }
