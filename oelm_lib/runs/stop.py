"""Requests to save and stop: the STOP file of a run, and the signals."""

import contextlib
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from oelm_lib.errors import UserError
from oelm_lib.files import as_user_error
from oelm_lib.runs.lock import is_locked
from oelm_lib.runs.process import this_process
from oelm_lib.runs.reading import known_status, state
from oelm_lib.runs.schema import ACTIVE

STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGHUP)
FILE_SECONDS = 1.0
"""Time between two looks for the STOP file, which may lie on a network disk."""


def stop_file(path: Path) -> Path:
    """Return the file that asks the run of a folder to save and stop while it exists."""
    return path / "STOP"


def write_stop_file(path: Path) -> None:
    """Ask the run of a folder to save and stop, also where it has no folder yet; never fails."""
    with contextlib.suppress(OSError):  # the trainer meets the same disk, and reports it
        path.mkdir(parents=True, exist_ok=True)
        stop_file(path).touch()


def remove_stop_file(path: Path) -> None:
    """Withdraw a request to stop, before a run begins or after it has ended."""
    with contextlib.suppress(OSError):  # the trainer meets the same disk, and reports it
        stop_file(path).unlink(missing_ok=True)


def ask_to_stop(path: Path) -> None:
    """Ask the run of a folder to save and stop at the end of its step, evaluation or save.

    A run of another host is asked also where it looks dead, since one of the clocks may be wrong.

    Raises:
        UserError: No process trains it, or the folder cannot be written.
    """
    check_not_queued(path)
    current = state(path)
    if current not in ACTIVE and not _may_train_elsewhere(path):
        raise UserError(f"{path}: {current}, so there is nothing to stop; see oelm status")
    with as_user_error(path, "cannot be asked to stop"):
        stop_file(path).touch()


def _may_train_elsewhere(path: Path) -> bool:
    """Return whether another host may train a run: it was the last, and the lock cannot tell."""
    status = known_status(path)
    elsewhere = status.get("host") != this_process()["host"]
    return status.get("state") in ACTIVE and elsewhere and is_locked(path) is None


def check_not_queued(path: Path) -> None:
    """Raise UserError where a queue on this or another host will train the run.

    A run that was submitted to Slurm is not refused: its job may have been cancelled since.
    """
    status = known_status(path)
    if state(path) == "queued" and not status.get("job"):
        raise UserError(
            f"{path}: waits in a queue, which will train it; stop that queue first"
            f" (on {status.get('host')}: kill {status.get('pid')}), whose running runs then save"
            " and stop"
        )


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


class StopRequest:
    """Whether somebody asked this run to save and stop. The second Ctrl-C stops at once."""

    def __init__(self, folder: Path):
        self._file = stop_file(folder)
        self._requested = False
        self._next_look = 0.0

    def __call__(self) -> bool:
        """Whether a stop is requested; a STOP file counts after at most FILE_SECONDS."""
        now = time.monotonic()
        if not self._requested and now >= self._next_look:
            self._requested = self._file.exists()
            self._next_look = now + FILE_SECONDS
        return self._requested

    def on_signal(self, number: int, frame: Any) -> None:
        """Request a stop; the handler for `on_stop`."""
        if self._requested and number == signal.SIGINT:
            raise KeyboardInterrupt
        self._requested = True
