"""Execute a notebook of notebooks/ with papermill, in a kernel of this Python."""

import logging
import sys
from pathlib import Path
from typing import Any

from oelm_lib import config


def execute(notebook: str, target: Path, parameters: dict[str, Any], **options: Any) -> None:
    """Execute a notebook of notebooks/ into `target`.

    Raises:
        papermill.exceptions.PapermillExecutionError: A cell failed; `target` shows where.
    """
    import papermill

    logging.getLogger("papermill").setLevel(logging.ERROR)
    papermill.execute_notebook(
        _literal(config.ROOT / "notebooks" / f"{notebook}.ipynb"),
        _literal(target),
        parameters=parameters,
        progress_bar=False,
        store_widget_state=False,
        coalesce_streams=True,
        cwd=config.ROOT,
        kernel_manager_class=own_kernel_manager(),
        # Without this the kernel warns of unencrypted TCP at every start.
        extra_arguments=["--IPKernelApp.log_level=40"],
        **options,
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


def _literal(path: Path) -> str:
    """Return a path with its braces doubled, since papermill formats every path."""
    return str(path).replace("{", "{{").replace("}", "}}")
