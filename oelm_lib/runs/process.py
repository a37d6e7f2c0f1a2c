"""Identity of a process in the records of a run: host, boot, number, start."""

import datetime
import functools
import os
import socket
from pathlib import Path
from typing import Any

import psutil

BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


def now() -> str:
    """Return the current time as ISO 8601 with the time zone, to the second."""
    return datetime.datetime.now().astimezone().isoformat(timespec="seconds")


@functools.cache
def boot_id() -> str:
    """Return an id of this boot of the kernel, which all containers of a machine share."""
    try:
        return BOOT_ID.read_text(encoding="utf-8").strip()
    except OSError:
        return f"{socket.gethostname()} {psutil.boot_time():.0f}"


def this_process() -> dict[str, Any]:
    """Return what identifies this process in status and lock records."""
    return {
        "pid": os.getpid(),
        "host": socket.gethostname(),
        "process_start": process_start(os.getpid()),
    }


def process_start(pid: Any) -> float | None:
    """Return the seconds from boot to the start of a live process, or None.

    With it, a process and a later one with the same number differ. It is not wall time, so setting
    the clock does not change it.
    """
    try:
        process = psutil.Process(int(pid))
        zombie = process.status() == psutil.STATUS_ZOMBIE
        return None if zombie else round(process.create_time() - psutil.boot_time(), 2)
    except (psutil.Error, TypeError, ValueError, OverflowError):
        return None


def is_alive(record: dict[str, Any]) -> bool:
    """Return whether the process that `this_process` recorded on this host still runs."""
    started = process_start(record.get("pid"))
    if started is not None:
        return started == record.get("process_start")
    try:
        os.kill(int(record["pid"]), 0)
    except PermissionError:
        return True  # of another user, and /proc does not show those here (hidepid)
    except (KeyError, OSError, TypeError, ValueError, OverflowError):
        return False
    return False  # a zombie
