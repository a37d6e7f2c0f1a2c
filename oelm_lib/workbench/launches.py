"""Commands that the workbench starts: detached, each with a record and a log in the outputs folder.

A command outlives the kernel, the browser and JupyterLab; its record tells a new kernel of it.
"""

import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from oelm_lib.errors import UserError
from oelm_lib.files import as_user_error, lock_exclusively, read_json, time_stamp, write_json
from oelm_lib.runs.names import command_line, run_name
from oelm_lib.runs.process import is_alive, process_start
from oelm_lib.runs.reading import known_status, state
from oelm_lib.runs.schema import ACTIVE

FOLDER = "logs"
"""Folder of the outputs folder that holds <time>_<words>.json and .log of each command."""
LOCK = "starting.lock"
"""Lock file in that folder, held while a kernel checks what runs and starts a command."""
MOST_SHOWN = 6
"""Largest number of ended commands that are shown."""
SHOWN_SECONDS = 3600
"""Time for which an ended command is shown, from the last line of its log."""
TAIL_BYTES = 4096
_started: list[subprocess.Popen] = []
"""Child processes of this kernel; _launches polls them, so that none stays a zombie."""
_ended: dict[Path, "Launch"] = {}
"""Commands that have ended, by their record, which is then not read again."""


@dataclass(frozen=True)
class Launch:
    """A command that was started.

    Attributes:
        command: As typed in a shell.
        log: File of its output.
        is_alive: Whether its process runs on this host.
        runs: Runs that it was started for, as <ID>_<slug>/seed<k>.
        at_once: Concurrent runs.
        pid: Its process, 0 where the record has none.
        started: Seconds since 1970.
    """

    command: str
    log: Path
    is_alive: bool
    runs: tuple[str, ...] = ()
    at_once: int = 1
    pid: int = 0
    started: float = 0.0

    def holds(self, path: Path) -> bool:
        """Return whether the command trains a run or will: it lives, the run has not ended."""
        if not self.is_alive or run_name(path) not in self.runs:
            return False
        current = state(path)
        if current in ("dead", "failed", "stopped"):  # before this command began, or under it?
            return (known_status(path).get("heartbeat") or 0.0) < self.started
        return current != "done"

    def held_runs(self, outputs: Path) -> list[Path]:
        """Return the folders of the runs that it holds."""
        paths = [outputs / name for name in self.runs]
        return [path for path in paths if self.holds(path)]

    def last_line(self) -> str:
        """Read the last line of its log that is not blank; "" where there is none."""
        try:
            with open(self.log, "rb") as file:
                file.seek(0, os.SEEK_END)
                file.seek(max(file.tell() - TAIL_BYTES, 0))
                lines = file.read().decode("utf-8", errors="replace").split("\n")
        except OSError:
            return ""
        return next((line for line in reversed(lines) if line.strip()), "")

    def stop(self) -> None:
        """Ask it to stop: each of its runs saves first, however often it is asked."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGTERM)


def start_command(
    arguments: list[str], outputs: Path, runs: Sequence[str] = (), at_once: int = 1
) -> Launch:
    """Start `oelm ARGUMENTS` in a session of its own; returns at once.

    Args:
        arguments: As on the command line, e.g. ["run", "DEMO-02", "--seeds", "42,43"].
        outputs: Folder of the run folders, for this command too.
        runs, at_once: As in Launch.

    Raises:
        UserError: The log cannot be written, or the process cannot be started.
    """
    words = re.sub(r"[^A-Za-z0-9]+", "-", " ".join(arguments[:2])).strip("-")
    log = outputs / FOLDER / f"{time_stamp()}_{words}.log"
    command = command_line(arguments)
    environment = {key: value for key, value in os.environ.items() if not key.startswith("JPY_")}
    with as_user_error(log, f"{command} was not started", exact=True):
        log.parent.mkdir(parents=True, exist_ok=True)
        with open(log, "wb") as file:
            process = subprocess.Popen(
                [sys.executable, "-u", "-m", "oelm_lib.cli", *arguments],
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=file,
                env=environment | {"OELM_OUTPUTS": str(outputs)},
                start_new_session=True,
            )
        _started.append(process)
        facts = {"command": command, "runs": list(runs), "at_once": at_once, "started": time.time()}
        facts |= {"host": socket.gethostname(), "pid": process.pid}
        facts["process_start"] = process_start(process.pid)
        write_json(log.with_suffix(".json"), facts)
    return Launch(command, log, True, tuple(runs), at_once, process.pid, facts["started"])


@contextlib.contextmanager
def one_starter(outputs: Path) -> Iterator[None]:
    """Let one kernel at a time look at the commands that run and start another.

    Raises:
        UserError: The folder of the logs cannot be written.
    """
    with as_user_error(outputs / FOLDER, "nothing was started", exact=True):
        (outputs / FOLDER).mkdir(parents=True, exist_ok=True)
        file = open(outputs / FOLDER / LOCK, "ab")
    with file:
        lock_exclusively(file.fileno())
        yield


def live_launches(outputs: Path) -> list[Launch]:
    """Return the commands that run on this host now, whichever kernel started them."""
    return [launch for launch in _launches(outputs) if launch.is_alive]


def starting_runs(outputs: Path) -> set[Path]:
    """Return the runs that live commands are about to train, and do not train yet."""
    starting = set()
    for launch in live_launches(outputs):
        held = launch.held_runs(outputs)
        active = [path for path in held if state(path) in ACTIVE]
        waiting = [path for path in held if path not in active]
        starting.update(waiting[: max(launch.at_once - len(active), 0)])
    return starting


def last_start(exp: str, outputs: Path) -> Launch | None:
    """Return the last command that started runs of an experiment without overrides, or None."""
    for launch in _launches(outputs):
        if any(name.startswith(f"{exp}_") and "+" not in name for name in launch.runs):
            return launch
    return None


def recent_launches(outputs: Path) -> list[Launch]:
    """Return the commands that run and those that ended last, the latest first, by any kernel.

    Those that ended more than SHOWN_SECONDS ago are left out, and those whose runs a later command
    has started again, since their last lines are out of date.
    """
    recent: list[Launch] = []
    ended = 0
    for launch in _launches(outputs):
        again = launch.runs and any(set(launch.runs) <= set(later.runs) for later in recent)
        is_shown = ended < MOST_SHOWN and not again and _is_recent(launch.log)
        if launch.is_alive or is_shown:
            recent.append(launch)
            ended += not launch.is_alive
    return recent


def _launches(outputs: Path) -> Iterator[Launch]:
    """Read the records of the commands, the latest first."""
    _started[:] = [process for process in _started if process.poll() is None]
    for record in sorted((outputs / FOLDER).glob("*.json"), reverse=True):
        launch = _ended.get(record) or _read(record)
        if not launch:
            continue
        if not launch.is_alive:
            _ended[record] = launch
        yield launch


def _read(record: Path) -> Launch | None:
    """Read the record of a command; None where it is broken."""
    try:
        plain = read_json(record) or {}
    except UserError:
        return None
    here = plain.get("host") == socket.gethostname()
    return Launch(
        command=str(plain.get("command")),
        log=record.with_suffix(".log"),
        is_alive=here and is_alive(plain),
        runs=tuple(map(str, plain.get("runs") or ())),
        at_once=_number(plain, "at_once", 1),
        pid=_number(plain, "pid", 0),
        started=_number(plain, "started", 0.0),
    )


def _number(plain: dict[str, Any], key: str, default: float) -> Any:
    """Return a number of a record, the default where it lacks it."""
    value = plain.get(key)
    return value if type(value) in (int, float) else default


def _is_recent(log: Path) -> bool:
    try:
        return time.time() - log.stat().st_mtime < SHOWN_SECONDS
    except OSError:
        return False
