"""Child processes: their cores and GPUs, their errors, their end with all they have started."""

import signal
from collections.abc import Sequence
from pathlib import Path

import psutil

from oelm_lib.errors import UserError
from oelm_lib.hardware import VISIBLE_DEVICES
from oelm_lib.runs.lock import NAME as LOCK_FILE
from oelm_lib.runs.lock import LockLost, RunInUse, is_locked
from oelm_lib.runs.lock_file import read_record

USER_ERRORS = {kind.__name__: kind for kind in (UserError, RunInUse, LockLost)}


def child_environment(threads: int, gpus: Sequence[str] = ()) -> dict[str, str]:
    """Return environment variables that limit a process to these threads and GPUs.

    Args:
        gpus: Names as the driver has them; if empty, the process sees the same as this one.
    """
    environment = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS"), str(threads))
    if gpus:
        # The driver's numbers are CUDA's only in this order.
        environment |= {VISIBLE_DEVICES: ",".join(gpus), "CUDA_DEVICE_ORDER": "PCI_BUS_ID"}
    return environment


def child_error(kind: str, message: str) -> Exception:
    """Return the error of a child: a UserError unchanged, any other as a one-line RuntimeError.

    Args:
        kind: Name of its class.
        message: Its text.
    """
    if kind in USER_ERRORS:
        return USER_ERRORS[kind](message)
    return RuntimeError(f"{kind}: {message}".splitlines()[0])


def exit_text(code: int) -> str:
    """Return how a process ended: its exit code, or the signal that a negative one stands for."""
    if code >= 0:
        return f"exit code {code}"
    return f"ended by signal {-code} ({signal.strsignal(-code) or 'unknown'})"


def is_held_by_another(folder: Path) -> bool:
    """Return whether a process that this one has not started may hold the lock of a run folder."""
    if is_locked(folder) is False:
        return False
    holder = read_record(folder / LOCK_FILE).get("pid")  # None while the lock is being taken
    started = {child.pid for child in psutil.Process().children(recursive=True)}
    return holder is not None and holder not in started


def kill_tree(pid: int) -> None:
    """Kill a process and all its descendants; those that are gone already are skipped."""
    try:
        root = psutil.Process(pid)
        processes = [*root.children(recursive=True), root]
    except psutil.NoSuchProcess:
        return
    for process in processes:
        try:
            process.kill()
        except psutil.NoSuchProcess:
            continue
