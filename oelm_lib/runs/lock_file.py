"""The file of a lock: its content, and the writer that it names."""

import os
from pathlib import Path
from typing import Any

from oelm_lib.files import json_object


def open_any(path: Path) -> int:
    """Open the lock file of any user; for writing where allowed, since NFS locks no other file."""
    try:
        return os.open(path, os.O_RDWR)
    except PermissionError:
        return os.open(path, os.O_RDONLY)


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


def read_record(path: Path) -> dict[str, Any]:
    """Return the record in a lock or status file; {} where it is missing or damaged."""
    return json_object(read_bytes(path)) or {}


def writer_name(record: dict[str, Any]) -> str:
    """Return the process that the record of a lock names, for messages."""
    if "pid" not in record:
        return "a process that its damaged lock.json does not name"
    return f"process {record['pid']} on {record.get('host')} since {record.get('since')}"
