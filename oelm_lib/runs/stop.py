"""Requests to save and stop: the STOP file of a run, and the signals."""

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from oelm_lib.errors import UserError
from oelm_lib.files import remedy
from oelm_lib.runs.reading import state
from oelm_lib.runs.schema import ACTIVE

STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGHUP)


def ask_to_stop(path: Path) -> None:
    """Ask the run of a folder to save and stop at the end of its step, evaluation or save.

    Raises:
        UserError: No process trains it, or the folder cannot be written.
    """
    current = state(path)
    if current not in ACTIVE:
        raise UserError(f"{path}: {current}, so there is nothing to stop; see oelm status")
    try:
        (path / "STOP").touch()
    except OSError as error:
        raise UserError(
            f"{path}: cannot be asked to stop: {error.strerror}; {remedy(error)}"
        ) from None


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
