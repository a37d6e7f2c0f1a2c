"""Text to token ids and back: GPT-2's BPE through tiktoken, or a BPE trained on the corpus."""

import json
import re
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import wait
from itertools import takewhile

import numpy as np

from oelm_lib.data.corpus import TOKENIZER_FILE, Corpus
from oelm_lib.data.gpt2_vocabulary import read_gpt2_file
from oelm_lib.data.progress import PROGRESS_SECONDS, in_background, print_line
from oelm_lib.data.spec import tokenizer_size
from oelm_lib.errors import UserError
from oelm_lib.files import sha256_file

END_OF_TEXT = "<|endoftext|>"
WORD_BYTES = 1000
"""Bytes after which training cuts a word: the time grows with the square of its length."""


class TooLittleTextError(UserError):
    """The text yields fewer tokens than the tokenizer should have."""


class Tokenizer:
    """A byte-level BPE with GPT-2's word pattern.

    The last id is end-of-text, to which no text encodes.

    Args:
        words: Token, with a printable character for each byte -> id, in the order of the merges.
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
        """Encode documents to uint16 ids.

        No end-of-text is added, and a literal <|endoftext|> is ordinary text.

        Raises:
            UserError: Nearly a million white-space characters in a row, too many for tiktoken.
        """
        return [self._encode(text) for text in documents]

    def _encode(self, text: str) -> np.ndarray:
        try:
            return self._encoding.encode_to_numpy(text, disallowed_special=()).astype(np.uint16)
        except ValueError as error:  # the regular expression's stack
            longest = max(map(len, re.findall(r"\s+", text)), default=0)
            raise UserError(
                f"the text that begins {text[:40]!r} cannot be encoded ({str(error)[:120]}): it has"
                f" {longest:,} white-space characters in a row; shorten them in the source"
            ) from None

    def decode_bytes(self, ids: Iterable[int]) -> bytes:
        """Decode ids to UTF-8 bytes; a character cut in two stays so."""
        return self._encoding.decode_bytes([int(rank) for rank in ids])

    def decode(self, ids: Iterable[int]) -> str:
        """Decode ids to text; bytes that are not UTF-8 become U+FFFD."""
        return self.decode_bytes(ids).decode(errors="replace")


class Ids:
    """Token ids as text: numbers with spaces between them."""

    def encode_documents(self, documents: Sequence[str]) -> list[np.ndarray]:
        """Read uint16 ids from each document. Raises UserError where one is not of numbers."""
        try:
            return [np.array(text.split(), np.uint16) for text in documents]
        except (ValueError, OverflowError):
            raise UserError("this corpus has no words; give token ids, e.g. '3 70 5 81'") from None

    def decode(self, ids: Iterable[int]) -> str:
        """Write the ids as text, with a space before each."""
        return "".join(f" {number}" for number in ids)


def load_tokenizer(corpus: Corpus) -> Tokenizer | Ids:
    """Load the tokenizer that a corpus was made with.

    Raises:
        UserError: Its file is missing or changed.
    """
    if corpus.tokenizer == "gpt2":
        return gpt2_tokenizer()
    if corpus.tokenizer.startswith("ids-"):
        return Ids()
    path = corpus.path / TOKENIZER_FILE
    if not path.is_file() or sha256_file(path) != corpus.manifest["tokenizer_sha256"]:
        raise UserError(
            f"{path}: is missing or not what the manifest says; delete {corpus.path} and prepare"
            " it again"
        )
    return bpe_tokenizer(path.read_text(encoding="utf-8"))


def gpt2_tokenizer() -> Tokenizer:
    """Return GPT-2's tokenizer, which gives the ids of tiktoken's `encode_ordinary`.

    Raises:
        UserError: As read_gpt2_file.
    """
    words = json.loads(read_gpt2_file("encoder.json"))
    del words[END_OF_TEXT]
    return Tokenizer(words)


def bpe_tokenizer(content: str) -> Tokenizer:
    """Return the tokenizer in a tokenizer.json of the `tokenizers` library."""
    return Tokenizer(json.loads(content)["model"]["vocab"])


def train_bpe(tokenizer: str, texts: Iterator[str]) -> str:
    """Train a byte-level BPE with GPT-2's word pattern; print a line every five seconds.

    Args:
        tokenizer: `bpe-<N>`; N counts the end-of-text token.
        texts: Documents, or parts of them.

    Returns:
        A tokenizer.json of the `tokenizers` library, the same for the same text.

    Raises:
        TooLittleTextError: The text is too small for N.
    """
    import tokenizers
    from tokenizers import decoders, models, pre_tokenizers, trainers

    size = tokenizer_size(tokenizer)
    words = pre_tokenizers.ByteLevel(add_prefix_space=False)
    library = tokenizers.Tokenizer(models.BPE())
    library.decoder = decoders.ByteLevel()
    library.pre_tokenizer = pre_tokenizers.Sequence(
        [words, pre_tokenizers.FixedLength(length=WORD_BYTES)]
    )
    trainer = trainers.BpeTrainer(
        vocab_size=size - 1,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    start, stopped = time.monotonic(), threading.Event()
    unstopped = takewhile(lambda text: not stopped.is_set(), texts)
    # The library releases the GIL, so this thread can handle Ctrl-C.
    training = in_background(lambda: library.train_from_iterator(unstopped, trainer))
    try:
        while not wait([training], PROGRESS_SECONDS).done:
            print_line(f"training {tokenizer}: {time.monotonic() - start:.0f} s so far")
        training.result()
    finally:
        stopped.set()
    library.pre_tokenizer = words
    found = library.get_vocab_size() + 1
    if found < size:
        raise TooLittleTextError(
            f"tokenizer = {tokenizer}: the train split yields {found} tokens; use at most"
            f" bpe-{found}"
        )
    return library.to_str()


def _byte_of_character() -> dict[str, int]:
    """Character -> the byte it stands for in GPT-2's files.

    A printable byte stands for itself, the others follow from U+0100 on.
    """
    printable = [byte for byte in range(256) if chr(byte).isprintable() and chr(byte) != " "]
    others = [byte for byte in range(256) if byte not in printable]
    return {chr(byte): byte for byte in printable} | {
        chr(256 + place): byte for place, byte in enumerate(others)
    }
