"""Live widgets: a figure in an output, and a look at the files every few seconds."""

import asyncio
import contextlib
from collections.abc import Callable

import ipywidgets

from oelm_lib.view.figure import Figure


def put(output: ipywidgets.Output, figure: Figure) -> None:
    """Show a figure with its save buttons in an output.

    Assigning `outputs` works from a task too, which `update_display` does not.
    """
    output.outputs = tuple({"output_type": "display_data"} | part for part in figure.outputs())


def watch(look: Callable[[], object], interval: float) -> asyncio.Task | None:
    """Call `look` every `interval` seconds; return the task, or None where no loop runs."""

    async def repeat() -> None:
        while True:
            await asyncio.sleep(interval)
            look()

    with contextlib.suppress(RuntimeError):
        return asyncio.get_running_loop().create_task(repeat())
