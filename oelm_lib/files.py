"""Write files so that no reader ever sees half of one."""

import contextlib
import hashlib
import json
import math
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

Check = Callable[[], None]
"""Raises where the file must not be written any more: the `check` of a run's lock."""


@contextlib.contextmanager
def replacing(path: Path, check: Check | None = None) -> Iterator[Path]:
    """Yield a temporary path; on success it is fsynced and renamed to `path`, else removed.

    Args:
        check: Called before the rename; what it raises prevents it.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        yield temporary
        with open(temporary, "rb") as file:
            os.fsync(file.fileno())
        if check:
            check()
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def write_text(path: Path, text: str, check: Check | None = None) -> None:
    """Write UTF-8 text atomically; `check` as for `replacing`."""
    with replacing(path, check) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path, value: Any, check: Check | None = None) -> None:
    """Write indented JSON atomically; numbers that are not finite become null; `check` as above."""
    write_text(path, json.dumps(finite(value), indent=1, ensure_ascii=False) + "\n", check)


def finite(value: Any) -> Any:
    """The value with every NaN and infinity replaced by None, since JSON has neither."""
    if isinstance(value, dict):
        return {key: finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def sha256_json(value: Any) -> str:
    """Hex SHA-256 of a plain value, whatever the order of its keys."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def sha256_file(path: Path) -> str:
    """Hex SHA-256 of a file's bytes."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
