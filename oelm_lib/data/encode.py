"""Text pieces -> token ids on disk, in parallel and in bounded memory."""

import hashlib
import os
import time
from array import array
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from oelm_lib.data.readers import Piece
from oelm_lib.data.sources import Source
from oelm_lib.data.tokenizer import END_OF_TEXT, Tokenizer
from oelm_lib.files import sha256_file

BATCH = 1 << 18
"""Characters that a thread encodes at a time."""
ECHO_SECONDS = 5.0
"""Between progress lines."""


class Encoded:
    """Token ids of one split of a source, in a file, and the facts of each document.

    Attributes:
        odd: Whether the SHA-256 of the document's text is odd.
    """

    def __init__(self, path: Path):
        self.path = path
        self.tokens, self.bytes, self.literal_eot, self.odd = (
            array("Q"),
            array("Q"),
            array("Q"),
            array("B"),
        )

    def write(self, chosen: np.ndarray, target: Path) -> dict[str, Any]:
        """Write the chosen documents in their order; return the split's entry in the manifest."""
        sizes = np.array(self.tokens, dtype=np.int64)
        starts = np.cumsum(sizes) - sizes
        with open(self.path, "rb") as source, open(target, "wb", buffering=1 << 20) as out:
            for some in np.array_split(chosen, len(chosen) // BATCH + 1):
                for start, size in zip(starts[some].tolist(), sizes[some].tolist(), strict=True):
                    out.write(os.pread(source.fileno(), 2 * size, 2 * start))
        sums = {
            key: int(np.array(getattr(self, key))[chosen].sum())
            for key in ("tokens", "bytes", "literal_eot")
        }
        return {"documents": len(chosen), **sums, "sha256": sha256_file(target)}

    def cut(self, token: int, encoder: Tokenizer, eot: int) -> int:
        """Cut the document that holds `token` in two before it; return the number of the second part."""
        ends = np.cumsum(np.array(self.tokens, dtype=np.int64))
        number = int(np.searchsorted(ends, token, side="right"))
        start = int(ends[number]) - self.tokens[number]
        ids = np.fromfile(self.path, dtype="<u2", count=self.tokens[number], offset=2 * start)
        parts = [part for part in (ids[: token - start], ids[token - start :]) if len(part)]
        texts = [encoder.decode_bytes(part[part != eot]) for part in parts]
        self.tokens[number : number + 1] = array("Q", map(len, parts))
        self.bytes[number : number + 1] = array("Q", map(len, texts))
        self.literal_eot[number : number + 1] = array(
            "Q", [text.count(END_OF_TEXT.encode()) for text in texts]
        )
        return number + len(parts) - 1


def encode_split(
    source: Source,
    split: str,
    encoder: Tokenizer,
    eot: int | None,
    path: Path,
    echo: Callable[[str], None],
) -> Encoded:
    """Encode one split of the source to `path` with all processors that this process may use.

    Args:
        eot: Written after each document; None: nothing is.
    """
    spec, documents = source.spec, Encoded(path)
    end = np.array([] if eot is None else [eot], dtype="<u2").tobytes()
    threads = (
        len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    )
    began = said = time.monotonic()
    size = total = 0
    with ThreadPoolExecutor(threads) as pool, open(path, "wb", buffering=1 << 20) as out:
        batches = _batches(source.pieces(split), documents, hashed=spec.test == "halves")
        for ids, ends in _in_order(pool, encoder, batches, ahead=2 * threads):
            out.write(ids.astype("<u2", copy=False).tobytes())
            size += len(ids)
            if not ends:
                continue
            out.write(end)
            documents.tokens.append(size + len(end) // 2)
            total, size = total + documents.tokens[-1], 0
            if spec.token_limit and total >= spec.token_limit:
                break
            now = time.monotonic()
            if now - said > ECHO_SECONDS and source.fraction:
                said, rate = now, sum(documents.bytes) / 1e6 / (now - began)
                left = (now - began) * (1 - source.fraction) / source.fraction
                echo(
                    f"{spec.name} {split}: {total:,} tokens, {rate:.1f} MB/s, about {left:.0f} s left"
                )
    for column in (documents.bytes, documents.literal_eot, documents.odd):
        del column[len(documents.tokens) :]
    echo(f"{spec.name} {split}: {len(documents.tokens):,} documents, {total:,} tokens")
    return documents


def _batches(pieces: Iterator[Piece], documents: Encoded, hashed: bool) -> Iterator[list[Piece]]:
    """Group pieces for the threads; note bytes, literal end-of-text and parity of each document on the way."""
    batch: list[Piece] = []
    characters = size = literal = 0
    digest = hashlib.sha256()
    for text, ends in pieces:
        data = text.encode()
        size, literal = size + len(data), literal + text.count(END_OF_TEXT)
        if hashed:
            digest.update(data)
        if ends:
            documents.bytes.append(size)
            documents.literal_eot.append(literal)
            documents.odd.append(digest.digest()[-1] % 2)
            size, literal, digest = 0, 0, hashlib.sha256()
        batch.append((text, ends))
        characters += len(text)
        if characters >= BATCH:
            yield batch
            batch, characters = [], 0
    yield batch


def _in_order(
    pool: ThreadPoolExecutor, encoder: Tokenizer, batches: Iterator[list[Piece]], ahead: int
) -> Iterator[tuple[np.ndarray, bool]]:
    """Yield (ids, whether its document ends) of every piece, at most `ahead` batches encoded in advance."""
    waiting: deque = deque()
    for batch in chain(batches, [None] * ahead):
        if batch is not None:
            ends = [piece_ends for _, piece_ends in batch]
            waiting.append(
                (pool.submit(encoder.encode_documents, [text for text, _ in batch]), ends)
            )
        if waiting and (batch is None or len(waiting) > ahead):
            future, ends = waiting.popleft()
            yield from zip(future.result(), ends, strict=True)
