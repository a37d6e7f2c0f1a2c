"""Work in a daemon thread: the main thread hears Ctrl-C, and need not wait for its end."""

import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any


def in_background(task: Callable[[], Any]) -> Future:
    """Start a task in a daemon thread; the future gets what it returns or raises."""
    future: Future = Future()

    def run() -> None:
        try:
            future.set_result(task())
        except BaseException as error:  # raised again by future.result()
            future.set_exception(error)

    threading.Thread(target=run, daemon=True).start()
    return future
