"""Text pieces -> token ids on disk, in parallel and in bounded memory."""

import hashlib
import time
from array import array
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from oelm_lib.data.progress import PROGRESS_SECONDS, print_line
from oelm_lib.data.readers import Piece
from oelm_lib.data.source import Source
from oelm_lib.data.tokenizer import END_OF_TEXT, Tokenizer
from oelm_lib.files import sha256_file
from oelm_lib.hardware import available_cores

BATCH = 1 << 18
"""Characters that a thread encodes at a time."""
DECODED = 1 << 16
"""Token ids that are decoded at a time."""


class Encoded:
    """Token ids of one split of a source, in a file, and the facts of each document.

    Args:
        path: File of the token ids.

    Attributes:
        tokens: Number of ids of each document, end-of-text included.
        bytes: UTF-8 bytes of its text.
        literal_eot: How often its text holds a literal <|endoftext|>.
        odd: Whether the SHA-256 of its text is odd; read only with `test: halves`.
    """

    def __init__(self, path: Path):
        self.path = path
        self.tokens, self.bytes, self.literal_eot = array("Q"), array("Q"), array("Q")
        self.odd = array("B")

    def append(self, tokens: int, size: int, literal_eot: int, odd: int) -> None:
        """Add the facts of the next document."""
        self.tokens.append(tokens)
        self.bytes.append(size)
        self.literal_eot.append(literal_eot)
        self.odd.append(odd)

    def write(self, chosen: np.ndarray, target: Path) -> dict[str, Any]:
        """Write the chosen documents in their order; return the split's entry in the manifest."""
        sizes = np.array(self.tokens, dtype=np.int64)
        starts = np.cumsum(sizes) - sizes
        ids = self._ids()
        with open(target, "wb", buffering=1 << 20) as out:
            for start, size in zip(starts[chosen].tolist(), sizes[chosen].tolist(), strict=True):
                out.write(ids[start : start + size])
        sums = {
            key: int(np.array(getattr(self, key))[chosen].sum())
            for key in ("tokens", "bytes", "literal_eot")
        }
        return {"documents": len(chosen), **sums, "sha256": sha256_file(target)}

    def cut(self, token: int, encoder: Tokenizer, eot: int | None) -> int:
        """Cut the document that holds `token` in two before it; return the second part's number."""
        ends = np.cumsum(np.array(self.tokens, dtype=np.int64))
        number = int(np.searchsorted(ends, token, side="right"))
        start = int(ends[number]) - self.tokens[number]
        ids = self._ids()[start : int(ends[number])]
        parts = [part for part in (ids[: token - start], ids[token - start :]) if len(part)]
        sizes, literal = zip(*(_text_facts(part, encoder, eot) for part in parts), strict=True)
        self.tokens[number : number + 1] = array("Q", map(len, parts))
        self.bytes[number : number + 1] = array("Q", sizes)
        self.literal_eot[number : number + 1] = array("Q", literal)
        return number + len(parts) - 1

    def _ids(self) -> np.ndarray:
        """Return the token ids, which stay on disk until they are used."""
        return np.asarray(np.memmap(self.path, dtype="<u2", mode="r"))


def _text_facts(ids: np.ndarray, encoder: Tokenizer, eot: int | None) -> tuple[int, int]:
    """Return the UTF-8 bytes of the text of ids, and how often it holds a literal end-of-text."""
    mark = END_OF_TEXT.encode()
    size = literal = 0
    rest = b""  # may begin a mark that the next block ends
    for start in range(0, len(ids), DECODED):
        block = ids[start : start + DECODED]
        text = encoder.decode_bytes(block[block != eot])
        size += len(text)
        rest += text
        literal += rest.count(mark)
        rest = rest[-len(mark) + 1 :]
    return size, literal


def encode_split(
    source: Source,
    split: str,
    encoder: Tokenizer,
    eot: int | None,
    path: Path,
) -> Encoded:
    """Encode one split of a source with all processors that this process may use.

    Prints a line of progress every five seconds.

    Args:
        source: Where the documents come from.
        split: train, validation or test.
        encoder: Runs in threads.
        eot: Written after each document; None: nothing is.
        path: File for the token ids.
    """
    spec, documents = source.spec, Encoded(path)
    end = np.array([] if eot is None else [eot], dtype="<u2").tobytes()
    threads = available_cores()
    progress = _Progress(source, split)
    total = read = tokens = size = literal = 0
    digest = hashlib.sha256()
    pool = ThreadPoolExecutor(threads)
    try:
        with open(path, "wb", buffering=1 << 20) as out:
            pieces = source.pieces(split)
            for text, ids, ends in _encoded(pool, encoder, pieces, ahead=2 * threads):
                out.write(ids.astype("<u2", copy=False).tobytes())
                data = text.encode()
                tokens, size, read = tokens + len(ids), size + len(data), read + len(data)
                progress.show(total + tokens, read)
                literal += text.count(END_OF_TEXT)
                if spec.test == "halves":
                    digest.update(data)
                if not ends:
                    continue
                out.write(end)
                tokens += len(end) // 2
                documents.append(tokens, size, literal, digest.digest()[-1] % 2)
                total += tokens
                tokens = size = literal = 0
                digest = hashlib.sha256()
                if spec.token_limit and total >= spec.token_limit:
                    break
    finally:
        pool.shutdown(cancel_futures=True)
    print_line(f"{spec.name} {split}: {len(documents.tokens):,} documents, {total:,} tokens")
    return documents


class _Progress:
    """Lines of progress of one split, with the time that is left."""

    def __init__(self, source: Source, split: str):
        self._source, self._label = source, f"{source.spec.name} {split}"
        self._start = self._last = time.monotonic()

    def show(self, tokens: int, size: int) -> None:
        """Write a line if the last is old enough; `size`: bytes of the text so far."""
        now, fraction = time.monotonic(), self._source.fraction
        if now - self._last < PROGRESS_SECONDS or not fraction:
            return
        self._last, seconds = now, now - self._start
        rate, left = size / 1e6 / seconds, seconds * (1 / fraction - 1)
        print_line(f"{self._label}: {tokens:,} tokens, {rate:.1f} MB/s, about {left:.0f} s left")


def _encoded(
    pool: ThreadPoolExecutor, encoder: Tokenizer, pieces: Iterator[Piece], ahead: int
) -> Iterator[tuple[str, np.ndarray, bool]]:
    """Yield (text, ids, whether its document ends) of every piece; `ahead` batches are in work."""
    waiting: deque[tuple[Future, list[Piece]]] = deque()
    for batch in _batches(pieces):
        waiting.append((pool.submit(encoder.encode_documents, [text for text, _ in batch]), batch))
        if len(waiting) > ahead:
            yield from _with_ids(*waiting.popleft())
    for pair in waiting:
        yield from _with_ids(*pair)


def _with_ids(ids: Future, batch: list[Piece]) -> Iterator[tuple[str, np.ndarray, bool]]:
    """Yield the pieces of a batch with their ids."""
    for (text, ends), piece_ids in zip(batch, ids.result(), strict=True):
        yield text, piece_ids, ends


def _batches(pieces: Iterator[Piece]) -> Iterator[list[Piece]]:
    """Group pieces of about BATCH characters."""
    batch: list[Piece] = []
    characters = 0
    for piece in pieces:
        batch.append(piece)
        characters += len(piece[0])
        if characters >= BATCH:
            yield batch
            batch, characters = [], 0
    yield batch
