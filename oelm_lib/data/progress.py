"""Long work while a corpus is prepared: lines of progress, and a thread to do it in."""

import contextlib
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

PROGRESS_SECONDS = 5.0
"""Time between lines of progress."""


def print_line(text: str) -> None:
    """Print a line; an output that is closed or full does not end the preparation."""
    with contextlib.suppress(OSError, ValueError):  # ValueError: a closed file
        print(text.encode(errors="backslashreplace").decode(), flush=True)


def in_background(task: Callable[[], Any]) -> Future:
    """Start a task in a daemon thread; the future gets what it returns or raises.

    The main thread can handle Ctrl-C meanwhile, and the process does not wait for the task.
    """
    future: Future = Future()

    def run() -> None:
        try:
            future.set_result(task())
        except BaseException as error:  # raised again by future.result()
            future.set_exception(error)

    threading.Thread(target=run, daemon=True).start()
    return future
