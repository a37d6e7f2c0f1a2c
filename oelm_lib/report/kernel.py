"""How papermill starts the kernel of a notebook and reads its paths."""

import resource
import sys
from pathlib import Path

from oelm_lib.errors import UserError

FEWEST_FILES = 64
"""Open files that a kernel needs; with fewer it dies or hangs as it starts, and names no cause."""


def check_open_files() -> None:
    """Raise UserError where the limit of open files is too low for a kernel."""
    allowed, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if 0 <= allowed < FEWEST_FILES:
        raise UserError(
            f"ulimit -n: {allowed} open files are allowed here, and a notebook needs at least"
            f" {FEWEST_FILES}; ulimit -n 1024 (in a new shell if this one refuses it), then the"
            " same command"
        )


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
