"""The file of a lock: `flock`, its content, and the writer that it names."""

import errno
import fcntl
import json
import os
import time
from pathlib import Path
from typing import Any

from oelm_lib.files import NO_FLOCK


def lock_exclusively(file: int, patience: float) -> bool | None:
    """Lock an open file exclusively.

    Args:
        patience: Seconds to wait for another process that holds the lock.

    Returns:
        Whether the file is locked; None where the file system has no `flock`.
    """
    end = time.monotonic() + patience
    while True:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        except OSError as error:
            if error.errno in NO_FLOCK or error.errno == errno.EBADF:
                return None  # EBADF: NFS wants a writable descriptor, and the file is another's
            if not isinstance(error, BlockingIOError):
                raise
            if time.monotonic() > end:
                return False
        time.sleep(0.05)


def is_at(file: int, path: Path) -> bool:
    """Return whether an open file is still the one at the path."""
    try:
        return os.path.samestat(os.fstat(file), os.stat(path))
    except FileNotFoundError:
        return False


def read_bytes(path: Path) -> bytes:
    """Return the content of a small file; empty where it is missing."""
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return b""


def parse_record(data: bytes) -> dict[str, Any]:
    """Return the record in the bytes of a lock or status file; {} where they are damaged."""
    try:
        record = json.loads(data)
    except (ValueError, RecursionError):
        return {}
    return record if isinstance(record, dict) else {}


def writer_name(record: dict[str, Any]) -> str:
    """Return the process that the record of a lock names, for messages."""
    if "pid" not in record:
        return "a process that its damaged lock.json does not name"
    return f"process {record['pid']} on {record.get('host')} since {record.get('since')}"
