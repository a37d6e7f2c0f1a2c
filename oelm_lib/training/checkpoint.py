"""Checkpoint files: written atomically, verified when read; the previous one is kept.

torch.save writes a zip archive; the archive's comment, its last 64 bytes, holds the SHA-256 of all
bytes before it. So a file that is torn, truncated or empty, or has a flipped bit, is recognised
before it is used, and `torch.load` reads it like any other. What a checkpoint holds, and how a run
resumes from it bit-equal: `training/state.py`.
"""

import hashlib
import os
import shutil
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import torch
from torch.utils._pytree import tree_map_only

from oelm_lib.errors import UserError
from oelm_lib.files import NO_HARD_LINKS, Check, replacing
from oelm_lib.runs.schema import RESUMABLE

FORMAT = 2
COMMENT_LENGTH = (64).to_bytes(2, "little")
"""The last field of a zip archive before its comment."""
SEAL_BYTES = 66
"""Bytes of that field and the comment."""

BROKEN = (KeyError, TypeError, AttributeError, IndexError, ValueError, RuntimeError)
"""Exceptions while loading a checkpoint that lacks a key or has a value of a wrong type."""


class DamagedError(Exception):
    """A checkpoint file is truncated or corrupted."""


class Latest(NamedTuple):
    """The newest whole checkpoint of a run folder."""

    path: Path
    state: dict[str, Any] | None
    """Its content; None where the folder has no whole checkpoint."""
    warning: str | None
    """About damaged checkpoints, on one line; None where there are none."""


def save(
    path: Path, state: dict[str, Any], keep_previous: bool = False, check: Check | None = None
) -> None:
    """Write a checkpoint atomically.

    Args:
        state: Tensors and plain values; `step` is required.
        keep_previous: Keep the old file as <name>.prev.pt.
        check: Called before the file is replaced; if it raises, the old file stays.
    """
    with replacing(path, check) as temporary:
        try:
            with open(temporary, "wb") as file:
                torch.save(state | {"format": FORMAT}, file)
        except RuntimeError as error:
            # torch hides the error of a full disk behind its own, raised while it cleans up.
            if isinstance(error.__context__, OSError):
                raise error.__context__ from None
            raise
        _seal(temporary)
        if keep_previous and path.is_file():
            _keep(path, path.with_suffix(".prev.pt"), check)


def _keep(path: Path, previous: Path, check: Check | None) -> None:
    """Give a file a second name; `path` exists at every moment."""
    with replacing(previous, check) as link:
        link.unlink(missing_ok=True)
        try:
            os.link(path, link)
        except OSError as error:
            if error.errno not in NO_HARD_LINKS:
                raise
            shutil.copyfile(path, link)


def load(path: Path) -> dict[str, Any]:
    """Read a checkpoint of tensors and plain values; no code in it is executed.

    Raises:
        DamagedError: The file is not whole.
        UserError: It is whole, but of another format or not a checkpoint of this workbook.
    """
    with open(path, "rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(size - SEAL_BYTES, 0))
        seal = file.read()
        if seal != COMMENT_LENGTH + _digest(file, size - SEAL_BYTES):
            raise DamagedError(f"{path}: {size} bytes that fail their checksum")
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, MemoryError):
        raise
    except Exception as error:  # torch's reader raises many kinds on a foreign archive
        raise UserError(
            f"{path}: refused ({type(error).__name__}): no archive of tensors, or one with objects"
            " that only run code could rebuild; use a checkpoint made by this workbook"
        ) from None
    if not isinstance(state, dict) or not isinstance(state.get("step"), int):
        raise UserError(
            f"{path}: holds no step, so it is no checkpoint of a run; use one made by this workbook"
        )
    if (found := state.get("format")) != FORMAT:
        raise UserError(
            f"{path}: checkpoint format {found!r}; this version reads {FORMAT}; use the version"
            " of the workbook that wrote it, or start the run again: oelm run ID --fresh"
        )
    return state


def load_latest(folder: Path) -> Latest:
    """Return the newest whole checkpoint of a run folder."""
    damaged = []
    for name in RESUMABLE:
        path = folder / f"{name}.pt"
        try:
            state = load(path)
        except (FileNotFoundError, IsADirectoryError):
            continue
        except DamagedError as error:
            damaged.append(str(error))
            continue
        remedy = f"continuing from {path.name} at step {state['step']}"
        return Latest(path, state, _damage_warning(damaged, remedy))
    return Latest(folder / "latest.pt", None, _damage_warning(damaged, "starting at step 0"))


def unusable(path: Path, error: Exception) -> UserError:
    """Return the error about a checkpoint that is whole, but not one of this run."""
    return UserError(
        f"{path}: something is missing or wrong in this checkpoint"
        f" ({type(error).__name__}: {error}); delete it, or start again: oelm run ID --fresh"
    )


def _damage_warning(damaged: list[str], remedy: str) -> str | None:
    """One line about damaged checkpoints; None where there are none."""
    if not damaged:
        return None
    return f"{'; '.join(damaged)}; {remedy}, later steps are trained again"


def _seal(path: Path) -> None:
    """Make the SHA-256 of a zip archive its comment."""
    with open(path, "r+b") as file:
        size = file.seek(0, os.SEEK_END)
        digest = _digest(file, size - len(COMMENT_LENGTH))
        file.seek(size - len(COMMENT_LENGTH))
        file.write(COMMENT_LENGTH + digest)


def _digest(file: BinaryIO, length: int) -> bytes:
    """Hex SHA-256 of the first `length` bytes."""
    file.seek(0)
    digest = hashlib.sha256()
    while length > 0 and (part := file.read(min(length, 1 << 22))):
        digest.update(part)
        length -= len(part)
    return digest.hexdigest().encode()


class Saver:
    """Writes checkpoints: at once on a CPU; on a GPU from a host copy in a thread, one at a time.

    Args:
        in_background: Whether to copy the state and write the file in a thread.
        check: As for `save`.
    """

    def __init__(self, in_background: bool, check: Check | None = None):
        self._pool = ThreadPoolExecutor(1) if in_background else None
        self._saving: Future | None = None
        self._check = check

    def save(self, path: Path, state: dict[str, Any], keep_previous: bool = False) -> None:
        """Save `state`, whose tensors later training may change in place."""
        self.wait()
        if not self._pool:
            save(path, state, keep_previous, self._check)
            return
        host = tree_map_only(torch.Tensor, lambda x: x.detach().to("cpu", copy=True), state)
        self._saving = self._pool.submit(save, path, host, keep_previous, self._check)

    def wait(self) -> None:
        """Wait for the save in progress; raise what went wrong in it."""
        saving, self._saving = self._saving, None
        if saving:
            saving.result()
