"""Every test here needs a CUDA GPU; each has a twin on the CPU in the tests of its package."""

import os
from pathlib import Path

import pytest

HERE = Path(__file__).parent
# cuBLAS reads it once in a process, at its first product, and a later test is deterministic.
os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")


def pytest_collection_modifyitems(items):
    import torch

    for item in items:
        if HERE in Path(item.fspath).parents:
            item.add_marker(pytest.mark.gpu)
            if not torch.cuda.is_available():
                item.add_marker(pytest.mark.skip(reason="no CUDA GPU on this machine"))


@pytest.fixture
def cuda():
    import torch

    return torch.device("cuda", 0)


@pytest.fixture
def gpu_run(tiny_run):
    """A function that opens a tiny run on the GPU; changes as for tiny_run."""
    on_gpu = {"machine__device": "cuda", "machine__compile": "off"}
    return lambda **changes: tiny_run(**on_gpu | changes)
