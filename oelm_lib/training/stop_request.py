"""A request to save and stop: by a signal, or by a STOP file in the run folder."""

import contextlib
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from oelm_lib.runs.stop import on_stop

FILE_SECONDS = 1.0
"""Time between two looks for the STOP file, which may lie on a network disk."""


class StopRequest:
    """Whether somebody asked this run to save and stop. The second Ctrl-C stops at once."""

    def __init__(self, folder: Path):
        self._file = folder / "STOP"
        self._requested = False
        self._next_look = 0.0

    def __call__(self) -> bool:
        """Whether a stop is requested; a STOP file counts after at most FILE_SECONDS."""
        now = time.monotonic()
        if not self._requested and now >= self._next_look:
            self._requested = self._file.exists()
            self._next_look = now + FILE_SECONDS
        return self._requested

    @contextlib.contextmanager
    def on_signals(self) -> Iterator[None]:
        """Request a stop on SIGINT, SIGTERM and SIGUSR1 within the block."""
        with on_stop(self._on_signal):
            yield

    def remove_file(self) -> None:
        """Remove the STOP file."""
        self._file.unlink(missing_ok=True)

    def _on_signal(self, number: int, frame: Any) -> None:
        if self._requested and number == signal.SIGINT:
            raise KeyboardInterrupt
        self._requested = True
