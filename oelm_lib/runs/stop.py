"""The signals that ask a run, a notebook or a queue to save and stop."""

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator
from typing import Any

STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)


@contextlib.contextmanager
def on_stop(handler: Callable[[int, Any], None]) -> Iterator[None]:
    """Let `handler` have the signals that ask for a stop; only a main thread may, elsewhere they stay as they are."""
    main = threading.current_thread() is threading.main_thread()
    before = {number: signal.signal(number, handler) for number in STOP_SIGNALS} if main else {}
    try:
        yield
    finally:
        for number, old in before.items():
            signal.signal(number, old)
