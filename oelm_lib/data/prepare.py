"""Make, list and show corpora: a corpus is made in a temporary folder and renamed when whole."""

import contextlib
import fcntl
import os
import shutil
import socket
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from oelm_lib.config import data_dir
from oelm_lib.data.corpus import FORMAT, MANIFEST, Corpus, checksum, open_corpus, read_corpus
from oelm_lib.data.encode import Encoded, encode_split
from oelm_lib.data.mqar import recall_examples
from oelm_lib.data.sources import HubError, Source, open_source
from oelm_lib.data.spec import SAMPLE, CorpusSpec, Recall, bpe_size, corpus_names, load_spec
from oelm_lib.data.tokenizer import (
    TOKENIZER_FILE,
    Tokenizer,
    bpe_tokenizer,
    gpt2_tokenizer,
    load_tokenizer,
    train_bpe,
)
from oelm_lib.errors import UserError
from oelm_lib.files import sha256_file, write_json, write_text

if TYPE_CHECKING:
    import pandas


def prepare(
    name: str,
    source: str | Path | None = None,
    tokenizer: str = "gpt2",
    limit: int | None = None,
    echo: Callable[[str], None] = print,
    wait: bool = False,
) -> Corpus:
    """Make data/<name>/<tokenizer>; a corpus that is there already is only opened.

    Args:
        name: A file in params/corpora/, or its name with -sample.
        source: Folder or file; None: the hub, or the generator.
        tokenizer: `gpt2` or `bpe-<N>`; `ids-<N>` for associative recall.
        limit: Documents read from each split of the source; the name must then end in -sample.
        echo: Takes lines of progress.
        wait: Whether to wait for another process that prepares the same corpus.

    Raises:
        UserError: Anything wrong with name, source, text or disk; nothing that looks whole is left.
    """
    spec = load_spec(name)
    if bool(spec.recall) != (tokenizer.startswith("ids-") if bpe_size(tokenizer) else False):
        allowed = "ids-<N>, e.g. ids-128" if spec.recall else "gpt2 or bpe-<N>, e.g. bpe-1024"
        raise UserError(f"tokenizer = {tokenizer}: {name} is made with {allowed}")
    if limit is not None:
        if not spec.sample or limit < 1:
            raise UserError(
                f"limit = {limit}: makes a sample of {name}; name it {name.removesuffix(SAMPLE)}{SAMPLE}"
            )
        spec = spec.model_copy(update={"limit": limit})
    folder = data_dir() / name / tokenizer
    part = folder.with_name(f".{tokenizer}.part")
    try:
        with _held(folder, wait, echo):
            if (folder / MANIFEST).is_file():
                echo(f"{folder} is there already; delete it to make it anew")
                return read_corpus(name, tokenizer)
            shutil.rmtree(part, ignore_errors=True)
            try:
                part.mkdir()
                _make(spec, open_source(spec, source, echo), tokenizer, part, echo)
                os.replace(part, folder)
            finally:
                shutil.rmtree(part, ignore_errors=True)
    except HubError as error:
        command = f"oelm data prepare {name} --tokenizer {tokenizer} --source FOLDER"
        raise HubError(f"{error}; prepare a local copy of it: `{command}`") from None
    except OSError as error:
        raise UserError(
            f"{folder}: cannot be written ({error.strerror or error}), nothing is left of it;"
            " make room there, or set OELM_DATA to another folder"
        ) from None
    return read_corpus(name, tokenizer)


def list_corpora() -> "pandas.DataFrame":
    """A row for each prepared corpus and for each corpus file that is not prepared."""
    import pandas

    rows = []
    for path in sorted(data_dir().glob(f"*/*/{MANIFEST}")):
        row = {"corpus": path.parts[-3], "tokenizer": path.parts[-2], "state": "prepared"}
        try:
            manifest = read_corpus(row["corpus"], row["tokenizer"], hashed=False).manifest
        except UserError as error:
            rows.append(row | {"state": f"broken: {error}"})
            continue
        row["state"] += "".join(f", {kind}" for kind in ("sample", "synthetic") if manifest[kind])
        for split, facts in manifest["splits"].items():
            row |= {f"{split}_{key}": f"{facts[key]:,}" for key in ("documents", "tokens")}
        rows.append(row)
    absent = sorted(set(corpus_names()) - {row["corpus"] for row in rows})
    return pandas.DataFrame(
        [*rows, *({"corpus": name, "state": "not prepared"} for name in absent)]
    ).fillna("")


def show(name: str, tokenizer: str = "gpt2", documents: int = 3) -> str:
    """Describe a prepared corpus: source, token statistics, the first validation documents."""
    corpus = open_corpus(name, tokenizer)
    lines = [
        f"{name} ({tokenizer}, {corpus.vocab_size:,} tokens) in {corpus.path}",
        f"source: {', '.join(f'{key} {value}' for key, value in corpus.manifest['source'].items() if value)}",
    ]
    for split, facts in corpus.manifest["splits"].items():
        lines.append(
            f"{split}: {facts['documents']:,} documents, {facts['tokens']:,} tokens, {facts['bytes']:,} bytes,"
            f" {facts['bytes'] / facts['tokens']:.3f} bytes a token, {facts['literal_eot']:,} literal end-of-text"
        )
    val, reader = corpus.tokens("val"), load_tokenizer(corpus)
    ends = (
        np.flatnonzero(val == corpus.eot)
        if corpus.eot is not None
        else np.array([min(len(val), 500)])
    )
    for start, end in zip([0, *(ends + 1).tolist()], ends[:documents].tolist(), strict=False):
        lines += ["", f"--- validation tokens {start:,} to {end:,}", reader.decode(val[start:end])]
    return "\n".join(lines)


@contextlib.contextmanager
def _held(folder: Path, wait: bool, echo: Callable[[str], None]) -> Iterator[None]:
    """Hold the right to make `folder`; the system takes it back when the process ends, however it ends."""
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
        lock.write(
            f"process {os.getpid()} on {socket.gethostname()} since {datetime.now():%Y-%m-%d %H:%M:%S}"
        )
        lock.flush()
        yield


def _make(
    spec: CorpusSpec, source: Source, tokenizer: str, part: Path, echo: Callable[[str], None]
) -> None:
    """Write token files, tokenizer and manifest into `part`."""
    if spec.recall:
        size = bpe_size(tokenizer)
        return _seal(spec, source, part, tokenizer, size, None, _recall(spec.recall, size, part))
    trained = part / TOKENIZER_FILE
    if tokenizer == "gpt2":
        encoder = gpt2_tokenizer()
    else:
        echo(f"{spec.name}: training {tokenizer}")
        write_text(trained, _train(spec, source, tokenizer))
        encoder = bpe_tokenizer(trained.read_text(encoding="utf-8"))
    eot = encoder.eot if spec.end_of_text else None
    encoded = {}
    for split in spec.source_splits:
        encoded[split] = encode_split(source, split, encoder, eot, part / f"{split}.source", echo)
        _check_complete(spec, source.rows[split], split, encoded[split])
    splits = {}
    for split, (documents, chosen) in _plan(spec, encoded, encoder, eot).items():
        splits[split] = documents.write(chosen, part / f"{split}.bin")
        if not splits[split]["bytes"]:
            raise UserError(
                f"{spec.name}: the {split} split would be empty; the source needs more documents"
            )
    for documents in encoded.values():
        documents.path.unlink()
    _seal(spec, source, part, tokenizer, encoder.vocab_size, eot, splits)


def _recall(recall: Recall, vocab_size: int, part: Path) -> dict[str, dict]:
    """Write the token files of associative recall; returns what the manifest says of them."""
    if min(vocab_size // 2 - 1, vocab_size - vocab_size // 2) < recall.pairs:
        raise UserError(
            f"tokenizer = ids-{vocab_size}: has no {recall.pairs} keys and values; use a larger N"
        )
    splits = {}
    for split, name in (("train", "train"), ("val", "validation"), ("test", "test")):
        examples = recall_examples(recall, name, vocab_size)
        examples.astype("<u2").tofile(part / f"{split}.bin")
        facts = {
            "documents": len(examples),
            "tokens": examples.size,
            "bytes": examples.nbytes,
            "literal_eot": 0,
        }
        splits[split] = facts | {"sha256": sha256_file(part / f"{split}.bin")}
    return splits


def _seal(
    spec: CorpusSpec,
    source: Source,
    part: Path,
    tokenizer: str,
    vocab_size: int,
    eot: int | None,
    splits: dict,
) -> None:
    """Write the manifest of what lies in `part`."""
    trained = part / TOKENIZER_FILE
    manifest = {
        "format": FORMAT,
        "corpus": spec.name,
        "tokenizer": tokenizer,
        "vocab_size": vocab_size,
        "eot": eot,
        "sample": spec.sample,
        "synthetic": bool(spec.generator or spec.recall),
        "source": source.facts,
        "revision": source.facts.get("revision"),
        "split_rules": spec.split_rules,
        "created": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "splits": splits,
        "tokenizer_file": TOKENIZER_FILE if trained.is_file() else None,
        "tokenizer_sha256": sha256_file(trained) if trained.is_file() else None,
    }
    write_json(part / MANIFEST, manifest | {"checksum": checksum(manifest)})
    for file in part.glob("*.bin"):
        with open(file, "rb") as content:
            os.fsync(content.fileno())


def _check_complete(spec: CorpusSpec, rows: int, split: str, documents: Encoded) -> None:
    """Refuse a source without text, or a part that would pass for the corpus. Raises UserError."""
    needed, tokens, limit = spec.rows.get(split, rows), sum(documents.tokens), spec.token_limit or 0
    if not sum(documents.bytes):
        found = "no text"
    elif rows != needed:
        found = f"{rows:,} rows, the complete corpus {needed:,}"
    elif tokens < limit and not spec.sample:
        found = f"{tokens:,} tokens, the complete corpus {limit:,}"
    else:
        return
    sample = spec.name.removesuffix(SAMPLE) + SAMPLE
    raise UserError(
        f"{spec.name}: the {split} split of the source has {found}; complete it, or name a part {sample}"
    )


def _train(spec: CorpusSpec, source: Source, tokenizer: str) -> str:
    """The tokenizer.json of `bpe-<N>`, trained on the documents that become the train split."""
    if spec.validation == "tail":
        raise UserError(
            f"{spec.name}: is cut by GPT-2 tokens and made with gpt2 only; use another corpus or tokenizer"
        )
    held_out: set[int] = set()
    if spec.validation == "permutation":
        held_out = set(
            _permutation(spec, sum(ends for _, ends in source.pieces("train")))[1].tolist()
        )

    def texts() -> Iterator[str]:
        document = 0
        for text, ends in source.pieces("train"):
            if document not in held_out:
                yield text
            document += ends

    return train_bpe(tokenizer, texts())


def _plan(
    spec: CorpusSpec, encoded: dict[str, Encoded], encoder: Tokenizer, eot: int | None
) -> dict[str, tuple]:
    """Split -> (Encoded, numbers of the documents chosen), by the corpus file's rules."""
    train, test = encoded["train"], encoded.get("test")
    val, count = encoded.get("validation", train), len(train.tokens)
    if spec.validation == "tail":
        count = train.cut(int((1 - spec.validation_fraction) * sum(train.tokens)), encoder, eot)
        kept, held_out = np.arange(count), np.arange(count, len(train.tokens))
    elif spec.validation == "permutation":
        kept, held_out = _permutation(spec, count)
    else:
        kept, held_out = np.arange(count), np.arange(len(val.tokens))
    plan = {"train": (train, kept), "val": (val, held_out)}
    if spec.test == "halves":
        odd = np.array(val.odd, dtype=bool)[held_out]
        return plan | {"val": (val, held_out[~odd]), "test": (val, held_out[odd])}
    return plan | ({"test": (test, np.arange(len(test.tokens)))} if test else {})


def _permutation(spec: CorpusSpec, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Train and validation documents of `datasets`' train_test_split, in its order."""
    order = np.random.default_rng(spec.validation_seed).permutation(count)
    held_out = int(np.ceil(count * spec.validation_fraction))
    return order[held_out:], order[:held_out]
