"""What live widgets share: a figure in an output, and a look at the files every few seconds."""

import asyncio
import contextlib
from collections.abc import Callable
from typing import Any

import ipywidgets


def put(output: ipywidgets.Output, figure: Any) -> None:
    """Put a figure into an output; this works from a task too, which update_display does not."""
    output.outputs = (
        {"output_type": "display_data", "data": figure._repr_mimebundle_(), "metadata": {}},
    )


def watch(look: Callable[[], object], interval: float) -> asyncio.Task | None:
    """Look again every `interval` seconds; None outside a kernel, where no loop runs."""

    async def look_again() -> None:
        while True:
            await asyncio.sleep(interval)
            look()

    with contextlib.suppress(RuntimeError):
        return asyncio.get_running_loop().create_task(look_again())
