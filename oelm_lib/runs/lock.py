"""The lock of a run folder: one process writes, and every other one is refused.

`lock.json` names the writer and holds a random token. Three facts keep a second writer out:

1. The writer holds an exclusive `flock` on the file for as long as it lives. The kernel drops it
   when the process ends, whatever its number, PID namespace or user, so no process table is read.
2. A thread counts up a beat in the file. A writer on another host, whose `flock` may not be
   visible here, is alive if its beat changes while a starter watches. Clocks are never compared.
3. The writer compares the token before every append, save and rename (`check`). A writer that was
   suspended and lost the lock stops at the next one and writes nothing.

A *starter* is a process that tries to take the lock. A dead writer's lock is taken away by a
rename, which succeeds for exactly one of several starters.
"""

import contextlib
import fcntl
import itertools
import json
import os
import secrets
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from oelm_lib.errors import IN_USE, UserError
from oelm_lib.files import as_user_error, json_object, lock_exclusively
from oelm_lib.runs.lock_file import (
    is_at,
    open_any,
    read_bytes,
    read_record,
    writer_name,
)
from oelm_lib.runs.process import boot_id, now, this_process
from oelm_lib.runs.schema import ACTIVE

NAME = "lock.json"
BEAT_SECONDS = 5.0
"""Time between two beats of a writer."""
WATCH_SECONDS = 30.0
"""How long a starter watches the beat of a writer that may run on another host."""
OTHER_OUTPUTS = ", or set OELM_OUTPUTS to another folder"
PATIENCE_SECONDS = 0.5
"""How long a starter waits for another one that examines the lock at the same moment."""
FIRST_BEAT = "000000000000"
"""All beats have as many digits: one is written over the other."""


class RunInUse(UserError):  # noqa: N818 (the state, not an error of the code)
    """Another process is the writer of the run folder."""

    exit_code = IN_USE


class LockLost(RunInUse):
    """Another process has become the writer in place of this one."""


@dataclass
class _Claim:
    """The lock.json that this process has created, open and locked; a thread counts up its beat.

    Attributes:
        file: Its descriptor.
        beat_at: Offset of the beat's digits.
    """

    file: int
    token: str
    pid: int
    beat_at: int

    def __post_init__(self):
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._beat, daemon=True, name="lock beat")
        self._thread.start()

    def stop_beat(self) -> None:
        """End the thread."""
        self._stopped.set()
        self._thread.join()

    def _beat(self) -> None:
        for count in itertools.count(1):
            if self._stopped.wait(BEAT_SECONDS):
                return
            with contextlib.suppress(OSError):
                # Only the digits change, in the file that this process created: a reader sees no
                # torn token, and the lock of a later writer is another file.
                os.pwrite(self.file, f"{count:0{len(FIRST_BEAT)}d}".encode(), self.beat_at)
                os.fsync(self.file)


class RunLock:
    """The lock of one run folder.

    The process owns the lock, not the object: every RunLock of the same folder in one process is
    held together and released together.

    Args:
        folder: Run folder; it must exist when the lock is acquired.
    """

    _claims: ClassVar[dict[Path, _Claim]] = {}

    def __init__(self, folder: Path):
        self.folder = Path(folder)
        self._file = self.folder / NAME

    @property
    def held(self) -> bool:
        """Whether this process has acquired the lock and not released it since."""
        return self._own_claim() is not None

    def acquire(self) -> None:
        """Become the folder's writer; nothing changes where this process already is.

        Watches for WATCH_SECONDS where the lock may belong to a writer on another host.

        Raises:
            RunInUse: Another process is the writer.
            UserError: The folder cannot be written.
            LockLost: This process was the writer, and another has taken over.
        """
        with as_user_error(self.folder, "cannot write here", OTHER_OUTPUTS, exact=True):
            if self.held:
                self.check()
            else:
                self._take()

    def _take(self) -> None:
        """Create lock.json, after that of a dead writer is removed."""
        for _ in range(20):  # others may take it and give it up meanwhile
            try:
                # O_EXCL: of several starters, exactly one creates the file.
                file = os.open(self._file, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o666)
            except FileExistsError:
                self._remove_dead()
            else:
                self._start(file)
                return
        raise RunInUse(f"{self.folder}: other processes open this run now; try again in a minute")

    def check(self) -> None:
        """Raise LockLost where lock.json no longer holds the token of this process."""
        claim = self._own_claim()
        if claim is None:
            raise LockLost(f"{self.folder}: not opened for writing by this process; open it again")
        data = read_bytes(self._file)
        record = json_object(data) or {}
        if record.get("token") == claim.token:
            return
        reason = "its lock.json was deleted or emptied"
        if data:
            reason = f"{writer_name(record)} has taken it over while this process was silent"
        raise LockLost(
            f"{self.folder}: {reason}; this process writes nothing more;"
            " see oelm status, then start the run again where nothing else writes it"
        )

    def release(self) -> None:
        """Give the lock up; lock.json is removed only where it is this process' own."""
        claim = self._own_claim()
        if claim is None:
            return
        claim.stop_beat()
        with contextlib.suppress(OSError):
            if read_record(self._file).get("token") == claim.token:
                self._remove(claim.token)
        del self._claims[self.folder.resolve()]
        with contextlib.suppress(OSError):
            # Explicit, since a forked child shares the lock through its copy of the descriptor.
            fcntl.flock(claim.file, fcntl.LOCK_UN)
        os.close(claim.file)

    def _own_claim(self) -> _Claim | None:
        """Return the claim of this process; a forked child does not inherit its parent's."""
        claim = self._claims.get(self.folder.resolve())
        return claim if claim and claim.pid == os.getpid() else None

    def _start(self, file: int) -> None:
        """Write the record into the new lock.json, lock it and start its beat."""
        try:
            if lock_exclusively(file, PATIENCE_SECONDS) is False:
                raise in_use(self.folder)  # a starter has opened the file and keeps it
            token = secrets.token_hex(16)
            writer = this_process() | {"boot": boot_id(), "since": now()}
            record = json.dumps(writer | {"token": token, "beat": FIRST_BEAT}).encode() + b"\n"
            os.pwrite(file, record, 0)
            os.fsync(file)
        except BaseException:
            if is_at(file, self._file):
                self._file.unlink()  # an empty lock.json would not name its writer
            os.close(file)
            raise
        beat_at = record.rindex(FIRST_BEAT.encode())
        self._claims[self.folder.resolve()] = _Claim(file, token, os.getpid(), beat_at)
        for grave in self.folder.glob(".lock.*.dead"):  # of a starter that was killed
            grave.unlink(missing_ok=True)

    def _remove_dead(self) -> None:
        """Remove the lock.json of a dead writer. Raises RunInUse where the writer lives."""
        self._wait_for_record()
        if self._file.is_symlink():
            raise UserError(f"{self._file}: is a link, and a lock is a file; remove the link")
        try:
            file = open_any(self._file)
        except FileNotFoundError:
            return
        try:
            locked = lock_exclusively(file, PATIENCE_SECONDS)
            if locked is False:
                raise in_use(self.folder)
            if not is_at(file, self._file):
                return  # another starter has taken this one away meanwhile
            data = read_bytes(self._file)
            record = json_object(data) or {}
            # The writer's own kernel drops its flock with it; of others, only the beat tells.
            same_kernel = locked and record.get("boot") == boot_id()
            if not same_kernel and self._is_written(data):
                raise in_use(self.folder)
            self._remove(record.get("token"))
        finally:
            os.close(file)

    def _wait_for_record(self) -> None:
        """Wait for a starter that has just created lock.json to write its record."""
        end = time.monotonic() + PATIENCE_SECONDS
        while time.monotonic() < end and self._file.exists() and not read_bytes(self._file):
            time.sleep(0.05)

    def _is_written(self, before: bytes) -> bool:
        """Return whether lock.json or status.json is written within WATCH_SECONDS."""
        status = self.folder / "status.json"
        status_before = read_bytes(status)
        end = time.monotonic() + WATCH_SECONDS
        while time.monotonic() < end:
            time.sleep(min(0.5, WATCH_SECONDS / 4))
            if read_bytes(self._file) != before or read_bytes(status) != status_before:
                return True
        return False

    def _remove(self, token: Any) -> None:
        """Delete lock.json if it still has this token; of several starters, one succeeds."""
        grave = self._file.with_name(f".lock.{secrets.token_hex(8)}.dead")
        with contextlib.suppress(FileNotFoundError):  # another starter was first
            os.rename(self._file, grave)
            if read_record(grave).get("token") != token:
                os.rename(grave, self._file)  # the lock of a writer that came in between
            grave.unlink(missing_ok=True)


def is_locked(folder: Path) -> bool | None:
    """Return whether a live writer holds the lock of a folder.

    None where this kernel cannot know: a writer on another host may hold it. Only its beat tells.
    """
    path = folder / NAME
    try:
        file = os.open(path, os.O_RDONLY)
    except FileNotFoundError:
        return False
    except OSError:
        return None
    try:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        except OSError:
            return None
        return False if read_record(path).get("boot") == boot_id() else None
    finally:
        os.close(file)


def is_writer(folder: Path, status: dict[str, Any]) -> bool:
    """Return whether lock.json names the process of a status; True if lock.json is damaged."""
    return read_record(folder / NAME).get("pid", status.get("pid")) == status.get("pid")


def in_use(folder: Path) -> RunInUse:
    """Return the error that names the writer of a folder, since when, and what makes it stop."""
    status = read_record(folder / "status.json")
    if is_writer(folder, status) and status.get("state") in ACTIVE:
        remedy = f"wait for it, stop it (oelm stop {folder}), or choose another seed"
    else:
        remedy = (
            "it does not train now, so oelm stop does not reach it: if it makes the page, scores or"
            " moves the run, try again in a minute; if it is a notebook that has opened the run"
            " (open_run), restart its kernel; or choose another seed"
        )
    return RunInUse(f"{folder}: in use by {writer_name(read_record(folder / NAME))}; {remedy}")
