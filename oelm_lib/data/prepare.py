"""Make a corpus: read, encode in parallel, split, and rename into place when whole."""

import fcntl
import hashlib
import json
import os
import shutil
import socket
import time
from array import array
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from oelm_lib.config import data_dir
from oelm_lib.data.corpus import FORMAT, MANIFEST, Corpus, checksum, read_corpus
from oelm_lib.data.sources import Piece, Source, open_source
from oelm_lib.data.spec import SAMPLE, CorpusSpec, bpe_size, load_spec
from oelm_lib.data.tokenizer import END_OF_TEXT, TOKENIZER_FILE, BpeTokenizer, Gpt2Tokenizer, Tokenizer, train_bpe
from oelm_lib.errors import UserError

BATCH = 1 << 18
"""Characters that a thread encodes at a time."""
ECHO_SECONDS = 5.0
"""Between progress lines."""


def prepare(
    name: str,
    source: str | Path | None = None,
    tokenizer: str = "gpt2",
    limit: int | None = None,
    echo: Callable[[str], None] = print,
    wait: bool = False,
) -> Corpus:
    """Make data/<name>/<tokenizer>; a corpus that is there already stays and is opened.

    Args:
        name: A file in params/corpora/, or its name and -sample.
        source: Folder or file; None: the hub, or the generator.
        tokenizer: `gpt2` or `bpe-<N>`.
        limit: Documents read from each split of the source; the name must then end in -sample.
        echo: Takes lines of progress.
        wait: Whether to wait for another process that is preparing the same corpus.

    Raises:
        UserError: Anything wrong with name, source, text or disk; nothing that looks whole is left.
    """
    spec = load_spec(name)
    bpe_size(tokenizer)
    if limit is not None:
        if not spec.sample or limit < 1:
            raise UserError(f"limit = {limit} of {name}: makes a sample; name it {name.removesuffix(SAMPLE)}{SAMPLE}")
        spec = spec.model_copy(update={"limit": limit})
    folder = data_dir() / name / tokenizer
    try:
        with _held(folder, wait, echo):
            if (folder / MANIFEST).is_file():
                echo(f"{name} ({tokenizer}) is already in {folder}; delete that folder to make it anew")
                return read_corpus(name, tokenizer)
            part = folder.with_name(f".{tokenizer}.part")
            shutil.rmtree(part, ignore_errors=True)
            try:
                part.mkdir()
                _make(spec, open_source(spec, source), tokenizer, part, echo)
                os.replace(part, folder)
            finally:
                shutil.rmtree(part, ignore_errors=True)
    except OSError as error:
        free = shutil.disk_usage(data_dir()).free / 1e9 if data_dir().is_dir() else 0.0
        raise UserError(
            f"{folder}: cannot be written ({error.strerror or error}; {free:.1f} GB free); nothing was left;"
            " free space, or set OELM_DATA to a folder on another disk"
        ) from None
    return read_corpus(name, tokenizer)


@contextmanager
def _held(folder: Path, wait: bool, echo: Callable[[str], None]) -> Iterator[None]:
    """Hold the right to make `folder`; the system gives it back when the process ends, however it ends."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with open(folder.with_name(f".{folder.name}.lock"), "a+") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.seek(0)
            line = f"{folder}: is being prepared by {lock.read() or 'another process'}"
            if not wait:
                raise UserError(f"{line}; wait for it to end, or stop it") from None
            echo(f"{line}; waiting for it")
            fcntl.flock(lock, fcntl.LOCK_EX)
        lock.truncate(0)
        lock.write(f"process {os.getpid()} on {socket.gethostname()} since {datetime.now():%Y-%m-%d %H:%M:%S}")
        lock.flush()
        yield


def _make(spec: CorpusSpec, source: Source, tokenizer: str, part: Path, echo: Callable[[str], None]) -> None:
    """Write the token files, the tokenizer and the manifest into `part`."""
    encoder = _tokenizer(spec, source, tokenizer, echo)
    eot = encoder.eot if spec.end_of_text else None
    encoded = {}
    for split in spec.source_splits:
        encoded[split] = _encode(spec, source, split, encoder, eot, part / f"{split}.source", echo)
        needed, found = spec.rows.get(split), source.rows[split]
        if needed is not None and found != needed:
            raise UserError(
                f"{spec.name}: the {split} split of the source has {found:,} rows, the complete corpus {needed:,};"
                f" complete the source, or prepare it as {spec.name}{SAMPLE}"
            )
    splits = {}
    for split, (documents, chosen) in _plan(spec, encoded, encoder, eot).items():
        splits[split] = documents.write(chosen, part / f"{split}.bin")
        if not splits[split]["bytes"]:
            raise UserError(f"{spec.name}: the {split} split has no text; the source needs more documents")
    for documents in encoded.values():
        documents.path.unlink(missing_ok=True)
    tokenizer_sha256 = None
    if isinstance(encoder, BpeTokenizer):
        encoder.save(part)
        tokenizer_sha256 = hashlib.sha256((part / TOKENIZER_FILE).read_bytes()).hexdigest()
    rules = spec.model_dump(mode="json", exclude={"generator", "title", "about", "name"}, exclude_defaults=True)
    manifest = {
        "format": FORMAT,
        "corpus": spec.name,
        "tokenizer": tokenizer,
        "vocab_size": encoder.vocab_size,
        "eot": eot,
        "sample": spec.sample,
        "synthetic": spec.generator is not None,
        "source": source.facts,
        "revision": source.revision,
        "split_rules": rules,
        "created": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "splits": splits,
        "tokenizer_file": TOKENIZER_FILE if tokenizer_sha256 else None,
        "tokenizer_sha256": tokenizer_sha256,
    }
    manifest["checksum"] = checksum(manifest)
    (part / MANIFEST).write_text(json.dumps(manifest, indent=1) + "\n", encoding="utf-8")
    for file in part.iterdir():
        with open(file, "rb") as content:
            os.fsync(content.fileno())


def _tokenizer(spec: CorpusSpec, source: Source, tokenizer: str, echo: Callable[[str], None]) -> Tokenizer:
    """GPT-2's, or one trained on the documents that become the train split."""
    if tokenizer == "gpt2":
        return Gpt2Tokenizer()
    if spec.validation == "tail":
        raise UserError(f"{spec.name}: is cut by GPT-2 tokens, so it is made with gpt2 only; use another corpus")
    echo(f"{spec.name}: training {tokenizer}")
    held_out: set[int] = set()
    if spec.validation == "permutation":
        count = sum(ends for _, ends in source.pieces("train"))
        held_out = set(_permutation(spec, count)[1].tolist())
    return train_bpe(tokenizer, _texts(source.pieces("train"), held_out))


def _texts(pieces: Iterator[Piece], left_out: set[int]) -> Iterator[str]:
    document = 0
    for text, ends in pieces:
        if document not in left_out:
            yield text
        document += ends


class Encoded:
    """Token ids of a source's split on disk, and the facts of each document."""

    def __init__(self, path: Path):
        self.path = path
        self.tokens, self.bytes, self.literal_eot, self.odd = array("Q"), array("Q"), array("Q"), array("B")

    def write(self, chosen: np.ndarray | None, target: Path) -> dict[str, Any]:
        """Write the chosen documents in their order (None: all) and return their manifest entry."""
        sizes = np.array(self.tokens, dtype=np.int64)
        if chosen is None:
            chosen = np.arange(len(sizes))
            os.replace(self.path, target)
        else:
            starts = np.cumsum(sizes) - sizes
            with open(self.path, "rb") as source, open(target, "wb") as out:
                for start, size in zip(starts[chosen].tolist(), sizes[chosen].tolist(), strict=True):
                    out.write(os.pread(source.fileno(), 2 * size, 2 * start))
        with open(target, "rb") as content:
            digest = hashlib.file_digest(content, "sha256").hexdigest()
        sums = {key: int(np.array(getattr(self, key))[chosen].sum()) for key in ("tokens", "bytes", "literal_eot")}
        return {"documents": len(chosen), **sums, "sha256": digest}

    def cut(self, token: int, encoder: Gpt2Tokenizer, eot: int | None) -> int:
        """Cut the document that holds `token` in two before it; return the number of the second part."""
        ends = np.cumsum(np.array(self.tokens, dtype=np.int64))
        number = int(np.searchsorted(ends, token, side="right"))
        start = int(ends[number]) - self.tokens[number]
        ids = np.fromfile(self.path, dtype="<u2", count=self.tokens[number], offset=2 * start)
        parts = []
        for part in (ids[: token - start], ids[token - start :]):
            text = encoder.decode_bytes(part[part != eot] if eot is not None else part)
            parts.append((len(part), len(text), text.count(END_OF_TEXT.encode()), 0))
        for column, values in zip(
            (self.tokens, self.bytes, self.literal_eot, self.odd), zip(*parts, strict=True), strict=True
        ):
            column[number : number + 1] = array(column.typecode, values)
        return number + 1


def _plan(spec: CorpusSpec, encoded: dict[str, Encoded], encoder: Tokenizer, eot: int | None) -> dict[str, Any]:
    """Split -> (documents, numbers of those chosen or None for all), by the corpus file's rules."""
    train = encoded["train"]
    if spec.validation == "source":
        held, chosen = encoded["validation"], None
        plan = {"train": (train, None)}
    else:
        held = train
        if spec.validation == "permutation":
            kept, chosen = _permutation(spec, len(train.tokens))
        else:
            first = train.cut(int((1 - spec.validation_fraction) * sum(train.tokens)), encoder, eot)
            kept, chosen = np.arange(first), np.arange(first, len(train.tokens))
        plan = {"train": (train, kept)}
    if spec.test == "halves":
        numbers = np.arange(len(held.tokens)) if chosen is None else chosen
        odd = np.array(held.odd, dtype=bool)[numbers]
        return plan | {"val": (held, numbers[~odd]), "test": (held, numbers[odd])}
    plan["val"] = (held, chosen)
    return plan | ({"test": (encoded["test"], None)} if spec.test == "source" else {})


def _permutation(spec: CorpusSpec, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Train and validation documents of `datasets`' train_test_split, in its order."""
    order = np.random.default_rng(spec.validation_seed).permutation(count)
    held_out = int(np.ceil(count * spec.validation_fraction))
    return order[held_out:], order[:held_out]


def _encode(
    spec: CorpusSpec, source: Source, split: str, encoder: Tokenizer, eot: int | None, path: Path, echo: Callable
) -> Encoded:
    """Encode one split of the source to `path`, with all the processors this process may use."""
    documents, end = Encoded(path), b"" if eot is None else np.array([eot], dtype="<u2").tobytes()
    threads = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    began = said = time.monotonic()
    size = total = 0
    with ThreadPoolExecutor(threads) as pool, open(path, "wb", buffering=1 << 20) as out:
        batches = _batches(source.pieces(split), documents, hashed=spec.test == "halves")
        for ends, arrays in _in_order(pool, encoder, batches, ahead=2 * threads):
            for ids, is_end in zip(arrays, ends, strict=True):
                out.write(ids.astype("<u2", copy=False).tobytes())
                size += len(ids)
                if is_end:
                    if eot is not None:
                        out.write(end)
                        size += 1
                    documents.tokens.append(size)
                    total, size = total + size, 0
                    if spec.token_limit and total >= spec.token_limit:
                        break
            else:
                now, share = time.monotonic(), source.fraction
                if now - said > ECHO_SECONDS and share:
                    said, rate = now, sum(documents.bytes) / 1e6 / (now - began)
                    left = (now - began) * (1 - share) / share
                    echo(f"{spec.name} {split}: {total:,} tokens, {rate:.1f} MB/s, about {left:.0f} s left")
                continue
            break
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


def _in_order(pool: ThreadPoolExecutor, encoder: Tokenizer, batches: Iterator[list[Piece]], ahead: int) -> Iterator:
    """Yield (which pieces end a document, ids of each piece) of every batch, encoding at most `ahead` in advance."""
    waiting: deque = deque()
    for batch in chain(batches, [None] * ahead):
        if batch is not None:
            waiting.append(
                ([ends for _, ends in batch], pool.submit(encoder.encode_arrays, [text for text, _ in batch]))
            )
        if waiting and (batch is None or len(waiting) > ahead):
            ends, future = waiting.popleft()
            yield ends, future.result()
