"""Read and write small files: whole or not at all, bounded, with a checksum where it matters."""

import contextlib
import datetime
import errno
import fcntl
import hashlib
import json
import math
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from oelm_lib.errors import UserError

Check = Callable[[], None]
"""Raises an error if the file must no longer be written, as RunLock.check does."""
NO_FLOCK = (errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOLCK, errno.EINVAL)
"""Errors of a file system without `flock`."""
NO_HARD_LINKS = (errno.EPERM, errno.ENOTSUP, errno.ENOSYS, errno.EMLINK, errno.EXDEV)
"""Errors of a file system without hard links (FAT, some network disks and containers)."""
REMEDIES = {
    errno.ENOSPC: "free the disk",
    errno.EDQUOT: "free space of your quota",
    errno.EFBIG: "raise the limit of file sizes (ulimit -f)",
    errno.EMFILE: "raise the limit of open files (ulimit -n)",
    errno.ENFILE: "close other programs: the system has no open files left",
    errno.EACCES: "fix the permissions",
    errno.EPERM: "fix the permissions",
    errno.EROFS: "choose a folder on a disk that can be written",
    errno.ENOENT: "create the folder, or fix the link to it",
    errno.ENOTDIR: "a file stands where a folder should be: choose another folder",
    errno.EEXIST: "a file or a dangling link stands where a folder should be: remove it",
    errno.ELOOP: "remove the link: a file or folder belongs there",
    errno.ENAMETOOLONG: "choose a folder with a shorter name",
    errno.ESTALE: "the network disk was remounted: run the command again",
    errno.EIO: "check the disk: it does not read or write",
    errno.ENOMEM: "free memory",
    errno.EISDIR: "a folder stands where the file should be: remove it",
}
"""Number of a system error -> what a user can do."""


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


def write_json(path: Path, value: Any, check: Check | None = None, checksum: bool = False) -> None:
    """Write indented JSON atomically; numbers that are not finite become null.

    Args:
        check: As for `replacing`.
        checksum: Add the `checksum` that `read_json` verifies. A value that has one gets a new one.
    """
    if checksum or (isinstance(value, dict) and "checksum" in value):
        value = with_checksum(value)
    write_text(path, json.dumps(nan_to_none(value), indent=1, ensure_ascii=False) + "\n", check)


def append_line(path: Path, text: str, unless: Callable[[bytes], bool] | None = None) -> bool:
    """Append one line durably; the file and its folders are made where missing.

    Writers of any number of processes take turns (`flock`; where the file system has none, they
    must not append at once). A last line that a crash left torn is cut first, and nothing else:
    a whole JSON object without its newline, as some editors leave it, gets the newline.

    Args:
        unless: Called under the lock with the whole lines of the file; where it returns True,
            nothing is changed.

    Returns:
        Whether the line was appended.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o666)
    try:
        lock_exclusively(file)
        with open(os.dup(file), "rb") as lines:
            content = lines.read()
        kept = _without_torn_line(content)
        if unless is not None and unless(kept):
            return False
        if len(kept) < len(content):
            os.ftruncate(file, len(kept))
        lacks_newline = kept and not kept.endswith(b"\n")
        rest = memoryview((b"\n" if lacks_newline else b"") + text.encode() + b"\n")
        while rest:
            rest = rest[os.write(file, rest) :]
        os.fsync(file)
    finally:
        os.close(file)
    return True


def lock_exclusively(file: int, patience: float = math.inf) -> bool | None:
    """Lock an open file exclusively.

    Args:
        patience: Seconds to wait for another process that holds the lock.

    Returns:
        Whether the file is locked; None where the file system has no `flock`.
    """
    end = time.monotonic() + patience
    wait = 0 if patience == math.inf else fcntl.LOCK_NB
    while True:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | wait)
            return True
        except OSError as error:
            if error.errno in NO_FLOCK or error.errno == errno.EBADF:
                return None  # EBADF: NFS wants a writable descriptor, and the file is another's
            if not isinstance(error, BlockingIOError):
                raise
            if time.monotonic() > end:
                return False
        time.sleep(0.05)


def json_object(text: bytes) -> dict[str, Any] | None:
    """Return the JSON object in a text; None where it is truncated, damaged, or no object."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def json_lines(text: bytes) -> list[bytes]:
    """Return the lines of a JSON Lines file; a truncated last line is left out."""
    return _without_torn_line(text).splitlines()


def _without_torn_line(text: bytes) -> bytes:
    """Return a JSON Lines file without its last line where a crash has truncated that."""
    ended = text.rfind(b"\n") + 1
    return text[:ended] if json_object(text[ended:]) is None else text


def read_json(
    path: Path, renewal: str = "delete it and run the command that wrote it"
) -> dict[str, Any] | None:
    """Read a JSON object, or None where there is no file.

    Where the object has a `checksum` (`with_checksum`), it is verified.

    Args:
        renewal: End of an error: how the user gets a damaged file written again.

    Raises:
        UserError: The file cannot be read, is no JSON object, or fails its checksum.
    """
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}; {remedy(error)}") from None
    except (ValueError, RecursionError):
        raise UserError(f"{path}: not readable as JSON; restore it, or {renewal}") from None
    if not isinstance(value, dict):
        kind = type(value).__name__
        raise UserError(f"{path}: holds {kind}, not an object; restore it, or {renewal}")
    if value.get("checksum") and value["checksum"] != checksum(value):
        raise UserError(
            f"{path}: fails its checksum: it was damaged or edited; restore it, or {renewal}"
        )
    return value


def with_checksum(record: dict[str, Any]) -> dict[str, Any]:
    """Return a record of plain values with its `checksum`: the SHA-256 of all other keys."""
    plain = {key: value for key, value in nan_to_none(record).items() if key != "checksum"}
    return plain | {"checksum": checksum(json.loads(json.dumps(plain)))}


def checksum(record: dict[str, Any]) -> str:
    """Return the SHA-256 of all keys but `checksum` of an object that JSON has given."""
    return sha256_json({key: value for key, value in record.items() if key != "checksum"})


def remedy(error: OSError) -> str:
    """Return what a user can do about a file that cannot be read or written."""
    return REMEDIES.get(error.errno, "check the disk and the permissions of the folder")


@contextlib.contextmanager
def as_user_error(path: object, what: str, end: str = "", exact: bool = False) -> Iterator[None]:
    """Turn an OSError of the block into a UserError: `PATH: WHAT: the reason; the remedy END`.

    Args:
        exact: Whether the file that the error names stands in place of `path`.
    """
    try:
        yield
    except OSError as error:
        where = (exact and error.filename) or path
        reason = error.strerror or error
        raise UserError(f"{where}: {what}: {reason}; {remedy(error)}{end}") from None


def time_stamp() -> str:
    """Return the local time to the microsecond as part of a file name; names sort by time."""
    return datetime.datetime.now().strftime("%Y%m%d-%H%M%S-%f")


def nan_to_none(value: Any) -> Any:
    """Return the value with every NaN and infinity replaced by None, since JSON has neither."""
    if isinstance(value, dict):
        return {key: nan_to_none(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [nan_to_none(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def sha256_json(value: Any) -> str:
    """Return the hex SHA-256 of a plain value, whatever the order of its keys."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def sha256_file(path: Path) -> str:
    """Return the hex SHA-256 of a file's bytes."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
