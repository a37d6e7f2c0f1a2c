"""documents.npz: the loss of a run on each document of a split."""

import zipfile
import zlib
from pathlib import Path

import numpy as np

from oelm_lib.errors import UserError
from oelm_lib.files import Check, replacing
from oelm_lib.runs.reading import RESCORE, RunFolder, record_file

UNREADABLE = (
    OSError,
    ValueError,
    KeyError,
    EOFError,
    TypeError,
    MemoryError,
    zipfile.BadZipFile,
    zlib.error,
)
"""What numpy raises on a damaged archive; MemoryError: a header that claims terabytes."""


def read_documents(run: RunFolder) -> dict[str, np.ndarray]:
    """Return `nats` and `tokens` of each document, and `test_...` where the test was scored.

    Raises:
        UserError: The file is missing or damaged.
    """
    path = record_file(run, "documents.npz")
    try:
        with np.load(path) as arrays:  # a zip archive: a changed byte fails its CRC-32
            documents = {name: arrays[name] for name in arrays}
        _check_documents(documents["nats"], documents["tokens"])
        if "test_tokens" in documents:
            _check_documents(documents["test_nats"], documents["test_tokens"])
    except FileNotFoundError:
        raise UserError(f"{path}: is missing; {RESCORE}") from None
    except UNREADABLE:
        raise UserError(f"{path}: is damaged; {RESCORE}") from None
    return documents


def write_documents(path: Path, documents: dict[str, np.ndarray], check: Check) -> None:
    """Write documents.npz of a run folder atomically; `check` as for files.replacing."""
    with replacing(path / "documents.npz", check) as temporary, open(temporary, "wb") as file:
        np.savez(file, **documents)


def _check_documents(nats: np.ndarray, tokens: np.ndarray) -> None:
    """Raise ValueError where the arrays are not one loss and one count a document."""
    are_numbers = nats.dtype.kind == "f" and tokens.dtype.kind in "iu"
    if not are_numbers or not nats.shape == tokens.shape == (nats.size,):
        raise ValueError("not one loss and one count a document")
    if (tokens < 0).any():
        raise ValueError("a negative count")
