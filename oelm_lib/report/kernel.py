"""How papermill starts the kernel of a notebook and reads its paths."""

import sys
from pathlib import Path


def own_kernel_manager() -> type:
    """Return a kernel manager that starts this Python, whatever kernels Jupyter finds.

    JUPYTER_PATH of a site module or a hub can hold another Python's `python3` kernel.
    """
    from jupyter_client import AsyncKernelManager
    from jupyter_client.kernelspec import KernelSpec

    class OwnKernelManager(AsyncKernelManager):
        @property
        def kernel_spec(self) -> KernelSpec:
            command = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
            return KernelSpec(argv=command, display_name="Python 3", language="python")

    return OwnKernelManager


def literal_path(path: Path) -> str:
    """Return a path with its braces doubled, since papermill formats every path."""
    return str(path).replace("{", "{{").replace("}", "}}")
