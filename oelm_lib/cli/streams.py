"""Standard streams that are closed or full, or whose reader or terminal goes away."""

import contextlib
import errno
import os
import sys
from collections.abc import Iterator
from typing import Any

READER_GONE = (errno.EPIPE, errno.EIO)
"""Errors of a write after the reader, e.g. head, has ended or the terminal was closed."""
DISK_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
"""Errors of a write to a file that cannot grow."""


def open_closed_streams() -> None:
    """Open /dev/null in place of a closed standard stream, for this process and its children."""
    for number, name, mode in ((0, "stdin", "r"), (1, "stdout", "w"), (2, "stderr", "w")):
        try:
            os.fstat(number)
        except OSError:
            opened = os.open(os.devnull, os.O_RDWR)  # the lowest free number, so this one
            if opened != number:
                os.dup2(opened, number)
                os.close(opened)
            os.set_inheritable(number, True)
        if getattr(sys, name) is None:
            setattr(sys, name, open(number, mode, closefd=False))


@contextlib.contextmanager
def _tolerant_streams(tolerated: tuple[int, ...]) -> Iterator[None]:
    """Let the decorated command print to streams that tolerate these system errors."""
    before = sys.stdout, sys.stderr
    sys.stdout, sys.stderr = (_TolerantStream(stream, tolerated) for stream in before)
    try:
        yield
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        sys.stdout, sys.stderr = before


outlives_its_reader = _tolerant_streams(READER_GONE)
"""Decorator: the command finishes its work after the reader of its output has gone."""
outlives_its_output = _tolerant_streams(READER_GONE + DISK_FULL)
"""Decorator: the same, also while the disk of its output is full.

For commands whose work is more than what they print.
"""


class _TolerantStream:
    """A text stream that goes to /dev/null once its reader has gone, and while its disk is full.

    Args:
        tolerated: Numbers of the system errors to which this applies; others are raised.
    """

    def __init__(self, stream: Any, tolerated: tuple[int, ...]):
        self._stream, self._tolerated = stream, tolerated

    def write(self, text: str) -> int:
        try:
            return self._stream.write(text)
        except OSError as error:
            self._discard(error)
            return len(text)

    def flush(self) -> None:
        try:
            self._stream.flush()
        except OSError as error:
            self._discard(error)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def _discard(self, error: OSError) -> None:
        if error.errno not in self._tolerated:
            raise error
        file = self._stream.fileno()
        kept, null = os.dup(file), os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, file)
        if error.errno in DISK_FULL:
            self._stream.flush()  # what is buffered would be refused at every later write
            os.dup2(kept, file)
        os.close(null)
        os.close(kept)
