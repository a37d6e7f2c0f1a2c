"""Read and follow the log of a run."""

import os
import time
from collections.abc import Iterator
from pathlib import Path

from oelm_lib.errors import UserError
from oelm_lib.runs.lock import is_locked
from oelm_lib.runs.reading import RunFolder, record_file, state
from oelm_lib.runs.schema import ACTIVE

NOTEBOOK_LOG = "notebook.log"
"""What `oelm run` and its notebook print; of interest where there is no training.log."""
LOGS = ("training.log", NOTEBOOK_LOG)
POLL_SECONDS = 0.5


def log_lines(run: RunFolder, last: int, follow: bool = False) -> Iterator[str]:
    """Yield the last lines of a run's log, then with `follow` new ones until the run ends.

    A run that has yet to begin is waited for, and a line says so. While a run is followed, a line
    that is being written is yielded when it is whole.

    Raises:
        UserError: There is no log.
    """
    if follow and _has_yet_to_begin(Path(run)):
        yield f"({state(run)}: lines follow when the run begins to train; Ctrl-C ends this)"
        while _has_yet_to_begin(Path(run)):
            time.sleep(POLL_SECONDS)
    paths = (record_file(run, name) for name in LOGS)
    path = next((path for path in paths if path.exists()), None)
    if path is None:
        raise UserError(f"{Path(run)}: no {' or '.join(LOGS)} yet; see oelm status")
    with open(path, "rb") as file:
        *lines, rest = file.read().split(b"\n")
        if rest and not follow:
            lines.append(rest)
        yield from map(_line_text, lines[-last:] if last else [])
        while follow:
            # Asked before reading, so that the last lines of a run that ends now are read.
            current = state(run)
            size = os.fstat(file.fileno()).st_size
            if size < file.tell():  # the run continued from an earlier checkpoint
                file.seek(size)
                rest = b""
            *lines, rest = (rest + file.read()).split(b"\n")
            yield from map(_line_text, lines)
            if current not in ACTIVE:
                if rest:
                    yield _line_text(rest)
                yield f"({current})"
                return
            time.sleep(POLL_SECONDS)


def _has_yet_to_begin(path: Path) -> bool:
    """Return whether a run is queued, or a process has opened it and does not train it yet."""
    current = state(path)
    if current in ACTIVE:
        return not (path / "training.log").exists()
    return current == "queued" or (current != "done" and is_locked(path) is True)


def _line_text(line: bytes) -> str:
    """Return a line as text; of a progress line that was rewritten, its last state."""
    return line.decode(errors="replace").rstrip("\r").rpartition("\r")[2]
