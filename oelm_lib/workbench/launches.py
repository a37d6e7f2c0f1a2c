"""Commands that the workbench starts: detached, each with a record and a log in the outputs folder.

A command outlives the kernel, the browser and JupyterLab; its record tells a new kernel of it.
"""

import datetime
import os
import re
import shlex
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from oelm_lib.errors import UserError
from oelm_lib.files import read_json, remedy, write_json
from oelm_lib.runs.process import is_alive, process_start, this_process

FOLDER = "logs"
"""Folder of the outputs folder that holds <time>_<words>.json and .log of each command."""
MOST_SHOWN = 6
SHOWN_SECONDS = 12 * 3600
"""Time after its last line for which a command that has ended is shown."""
TAIL_BYTES = 4096
_started: list[subprocess.Popen] = []
"""Children of this kernel, asked for their end so that none stays a zombie."""


@dataclass(frozen=True)
class Launch:
    """A command that was started.

    Attributes:
        command: As one types it.
        is_alive: Whether its process runs on this host.
        last_line: Of its log.
    """

    command: str
    log: Path
    is_alive: bool
    last_line: str


def start_command(arguments: list[str], outputs: Path) -> Launch:
    """Start `oelm ARGUMENTS` in a session of its own; returns at once.

    Args:
        arguments: As on the command line, e.g. ["run", "DEMO-02", "--seeds", "42,43"].
        outputs: Folder of the run folders, for this command too.

    Raises:
        UserError: The log cannot be written, or the process cannot be started.
    """
    moment = datetime.datetime.now().strftime("%Y%m%d-%H%M%S-%f")
    words = re.sub(r"[^A-Za-z0-9]+", "-", " ".join(arguments[:2])).strip("-")
    log = outputs / FOLDER / f"{moment}_{words}.log"
    command = shlex.join(["oelm", *arguments])
    environment = {key: value for key, value in os.environ.items() if not key.startswith("JPY_")}
    try:
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
        identity = {"pid": process.pid, "process_start": process_start(process.pid)}
        write_json(log.with_suffix(".json"), {"command": command} | this_process() | identity)
    except OSError as error:
        raise UserError(
            f"{error.filename or log}: {command} was not started: {error.strerror}; {remedy(error)}"
        ) from None
    return Launch(command, log, True, "")


def recent_launches(outputs: Path) -> list[Launch]:
    """Return the commands started last, the latest first, by whichever kernel.

    Those that ended more than SHOWN_SECONDS ago are left out.
    """
    _started[:] = [process for process in _started if process.poll() is None]
    records = sorted((outputs / FOLDER).glob("*.json"), reverse=True)[:MOST_SHOWN]
    launches = [launch for launch in map(_read, records) if launch]
    return [launch for launch in launches if launch.is_alive or _is_recent(launch.log)]


def _read(record: Path) -> Launch | None:
    """Read the record of a command; None where it is broken."""
    try:
        plain = read_json(record) or {}
    except UserError:
        return None
    log = record.with_suffix(".log")
    here = plain.get("host") == this_process()["host"]
    return Launch(str(plain.get("command")), log, here and is_alive(plain), _last_line(log))


def _is_recent(log: Path) -> bool:
    try:
        return time.time() - log.stat().st_mtime < SHOWN_SECONDS
    except OSError:
        return False


def _last_line(log: Path) -> str:
    try:
        with open(log, "rb") as file:
            file.seek(0, os.SEEK_END)
            file.seek(max(file.tell() - TAIL_BYTES, 0))
            lines = file.read().decode("utf-8", errors="replace").split("\n")
    except OSError:
        return ""
    return next((line for line in reversed(lines) if line.strip()), "")
