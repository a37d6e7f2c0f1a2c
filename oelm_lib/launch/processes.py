"""Child processes: their errors, and their end with everything they have started."""

import psutil

from oelm_lib.errors import UserError
from oelm_lib.runs.lock import LockLost, RunInUse

USER_ERRORS = {kind.__name__: kind for kind in (UserError, RunInUse, LockLost)}


def child_error(kind: str, message: str) -> Exception:
    """Return the error of a kernel or worker: a UserError as it is, another one on one line.

    Args:
        kind: Name of its class.
        message: Its text.
    """
    if kind in USER_ERRORS:
        return USER_ERRORS[kind](message)
    return RuntimeError(f"{kind}: {message}".splitlines()[0])


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
