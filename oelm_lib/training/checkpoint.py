"""Checkpoints: written whole or not at all, checked when read, the last one kept behind the newest.

torch.save writes a zip archive; the archive's comment, its last 64 bytes, holds the SHA-256 of all bytes before
it. A file that is torn, truncated, empty or has a flipped bit is found out before it is used, and `torch.load`
reads it like any other.
"""

import hashlib
import os
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, BinaryIO

import torch
from torch.utils._pytree import tree_map_only

from oelm_lib.errors import UserError
from oelm_lib.files import replacing

FORMAT = 1
COMMENT_LENGTH = (64).to_bytes(2, "little")
"""The last field of a zip archive before its comment."""
SEAL = 66
"""Bytes of that field and the comment."""


class DamagedError(Exception):
    """A checkpoint file is not whole."""


def save(path: Path, state: dict[str, Any], keep_previous: bool = False) -> None:
    """Write a checkpoint atomically; with `keep_previous` the old file becomes <name>.prev.pt."""
    with replacing(path) as temporary:
        try:
            with open(temporary, "wb") as file:
                torch.save(state | {"format": FORMAT}, file)
        except RuntimeError as error:
            # torch hides the error of a full disk behind one of its own, made while it tidies up.
            raise error.__context__ if isinstance(error.__context__, OSError) else error from None
        _seal(temporary)
        if keep_previous and path.is_file():
            # A link, not a rename: at no moment is there no `path`.
            fresh_link = path.with_suffix(".prev.tmp")
            fresh_link.unlink(missing_ok=True)
            os.link(path, fresh_link)
            os.replace(fresh_link, path.with_suffix(".prev.pt"))


def load(path: Path) -> dict[str, Any]:
    """Read a checkpoint of tensors and plain values; executes nothing.

    Raises:
        DamagedError: The file is not whole.
        UserError: It is whole, but of another format or not a checkpoint of this workbook.
    """
    with open(path, "rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(size - SEAL, 0))
        seal = file.read()
        if seal != COMMENT_LENGTH + _digest(file, size - SEAL):
            raise DamagedError(f"{path}: {size} bytes that fail their checksum")
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, MemoryError):
        raise
    except Exception as error:  # a foreign archive fails in torch's reader in a hundred ways
        raise UserError(
            f"{path}: no archive of tensors, or holds objects that only run code could rebuild, so it is refused"
            f" ({type(error).__name__}); use a checkpoint made by this workbook"
        ) from None
    if not isinstance(state, dict) or not isinstance(state.get("step"), int):
        raise UserError(
            f"{path}: holds no step, so it is not a run's checkpoint; use one made by this workbook"
        )
    if state.get("format") != FORMAT:
        found = state.get("format")
        raise UserError(
            f"{path}: checkpoint format {found!r}; this version reads {FORMAT}; update the workbook"
        )
    return state


def load_latest(folder: Path) -> tuple[dict[str, Any] | None, str | None]:
    """The newest whole checkpoint of a run folder, and a warning where a damaged one was passed over.

    Returns:
        (None, warning or None) where no whole one is there.
    """
    found = []
    for name in ("latest.pt", "latest.prev.pt"):
        path = folder / name
        if not path.is_file():
            continue
        try:
            state = load(path)
        except DamagedError as error:
            found.append(str(error))
            continue
        return state, _lost(
            found, f"going on from {name} at step {state['step']}"
        ) if found else None
    return None, _lost(found, "starting at step 0") if found else None


def _lost(found: list[str], remedy: str) -> str:
    return f"{'; '.join(found)}; {remedy}, the steps after it are trained again"


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
    """Writes checkpoints: at once on a CPU; on a GPU through a host copy and one thread, one save in flight."""

    def __init__(self, in_background: bool):
        self._pool = ThreadPoolExecutor(1) if in_background else None
        self._saving: Future | None = None

    def save(self, path: Path, state: dict[str, Any], keep_previous: bool = False) -> None:
        """Save `state`, which later training may change in place."""
        self.wait()
        if self._pool:
            copied = tree_map_only(
                torch.Tensor, lambda tensor: tensor.detach().to("cpu", copy=True), state
            )
            self._saving = self._pool.submit(save, path, copied, keep_previous)
        else:
            save(path, state, keep_previous)

    def wait(self) -> None:
        """Wait for the save in flight; raises what went wrong in it."""
        saving, self._saving = self._saving, None
        if saving:
            saving.result()
