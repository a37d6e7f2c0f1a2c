"""Signals that ask a run, a notebook or a queue to save and stop."""

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator
from typing import Any

STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGHUP)


@contextlib.contextmanager
def on_stop(handler: Callable[[int, Any], None]) -> Iterator[None]:
    """Let `handler` receive the signals that ask for a stop, until the block ends.

    SIGHUP (a closed terminal) stays ignored where nohup ignores it. Only the main thread can
    receive signals; in another thread nothing changes.
    """
    before: dict[int, Any] = {}
    if threading.current_thread() is threading.main_thread():
        for number in STOP_SIGNALS:
            ignored = signal.getsignal(number) == signal.SIG_IGN
            if not (number == signal.SIGHUP and ignored):
                before[number] = signal.signal(number, handler)
    try:
        yield
    finally:
        for number, old in before.items():
            signal.signal(number, old)
