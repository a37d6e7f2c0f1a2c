"""Prepare a corpus: make it in a temporary folder, rename the folder when it is complete."""

import contextlib
import os
import shutil
import socket
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from oelm_lib.config import Experiment, data_dir
from oelm_lib.data.corpus import (
    FORMAT,
    MANIFEST,
    TOKENIZER_FILE,
    Corpus,
    read_corpus,
    write_manifest,
)
from oelm_lib.data.encode import Encoded, encode_split
from oelm_lib.data.hub import HubError
from oelm_lib.data.mqar import recall_examples
from oelm_lib.data.progress import print_line
from oelm_lib.data.source import Source, open_source
from oelm_lib.data.spec import SAMPLE, CorpusSpec, load_spec, tokenizer_size
from oelm_lib.data.splits import permuted_split, plan_splits
from oelm_lib.data.tokenizer import Tokenizer, bpe_tokenizer, gpt2_tokenizer, train_bpe
from oelm_lib.errors import UserError
from oelm_lib.files import as_user_error, lock_exclusively, sha256_file, write_text

REHEARSAL = "data.corpus=stories train.max_steps=10 train.batch_size=1 train.eval_tokens=4096"
"""Overrides with which any experiment runs on a CPU: the log's model takes about a minute."""
OTHER_FOLDER = ", or set OELM_DATA to another folder"
"""Appended to the remedy in an error of the operating system about the data folder."""


def open_corpus(name: str, tokenizer: str, experiment: Experiment | None = None) -> Corpus:
    """Open a prepared corpus and hash its train and val files (about a second a gigabyte).

    A corpus that is not there yet is prepared: `stories` is generated, others are read from the
    hub. A second process that needs it meanwhile waits.

    Args:
        name: A file in params/corpora/, or its name with -sample.
        tokenizer: `gpt2`, `bpe-<N>` or `ids-<N>`.
        experiment: What needs it; an error names the command that rehearses it.

    Raises:
        UserError: Unknown corpus, a file that differs from the manifest, no hub.
    """
    if (data_dir() / name / tokenizer / MANIFEST).is_file():
        return read_corpus(name, tokenizer)
    try:
        return prepare(name, tokenizer=tokenizer)
    except HubError as error:
        if experiment is None:
            raise
        rehearse = f'`oelm run {experiment.id} --set "{REHEARSAL}"`'
        raise UserError(f"{error}; or rehearse: {rehearse}") from None


def prepare(
    name: str,
    source: str | Path | None = None,
    tokenizer: str = "gpt2",
    limit: int | None = None,
) -> Corpus:
    """Make data/<name>/<tokenizer>; a corpus that is there already is only opened.

    Where another process prepares the same corpus, this one waits for it.

    Args:
        name: A file in params/corpora/, or its name with -sample.
        source: Folder or file; None: the hub, or the generator.
        tokenizer: `gpt2` or `bpe-<N>`; `ids-<N>` for associative recall.
        limit: Documents read from each split of the source; the name must then end in -sample.

    Returns:
        The corpus, checked.

    Raises:
        UserError: Anything wrong with name, source, text or disk; no incomplete corpus is left.
    """
    spec = _checked_spec(name, tokenizer, limit)
    folder = data_dir() / name / tokenizer
    with as_user_error(folder, "cannot be prepared", OTHER_FOLDER, exact=True):
        # A wrong --source is an error even where the corpus is there already.
        local = None if source is None else open_source(spec, source)
        # Without the lock, which a data folder that is read-only cannot take.
        is_made = (folder / MANIFEST).is_file()
        if not is_made:
            with _locked(folder):
                is_made = (folder / MANIFEST).is_file()  # by another process, meanwhile
                if not is_made:
                    _make_folder(spec, local, tokenizer, folder)
    if is_made:
        print_line(f"{folder} exists already; delete it to prepare it again")
    return read_corpus(name, tokenizer)


def _make_folder(spec: CorpusSpec, local: Source | None, tokenizer: str, folder: Path) -> None:
    """Make the corpus beside its folder, then rename it. Raises UserError; then nothing is left.

    Args:
        local: The files given by the user; None: the hub, or the generator.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError(
            f"{folder}: has no {MANIFEST}, so it is no complete corpus; delete it, or copy"
            " the whole folder again"
        )
    part = folder.with_name(f".{tokenizer}.part")
    end = f"{OTHER_FOLDER}; nothing is left of {folder}"
    shutil.rmtree(part, ignore_errors=True)
    try:
        with as_user_error(folder, "cannot be prepared", end, exact=True):
            part.mkdir()
            text = local or open_source(spec, None)
            for note in text.notes:
                print_line(f"{spec.name}: {note}")
            _make(text, tokenizer, part)
            os.replace(part, folder)
    except HubError as error:
        command = f"oelm data prepare {spec.name} --tokenizer {tokenizer} --source FOLDER"
        raise HubError(f"{error}; prepare a local copy of it: `{command}`") from None
    finally:
        shutil.rmtree(part, ignore_errors=True)


def _checked_spec(name: str, tokenizer: str, limit: int | None) -> CorpusSpec:
    """Load the corpus file, with the limit. Raises UserError where the arguments do not fit it."""
    spec, size = load_spec(name), tokenizer_size(tokenizer)
    if bool(spec.recall) != tokenizer.startswith("ids-"):
        allowed = "ids-<N>, e.g. ids-128" if spec.recall else "gpt2 or bpe-<N>, e.g. bpe-1024"
        raise UserError(f"tokenizer = {tokenizer}: {name} is made with {allowed}")
    if spec.recall and min(size // 2 - 1, size - size // 2) < spec.recall.pairs:
        raise UserError(
            f"tokenizer = {tokenizer}: has no {spec.recall.pairs} keys and values; use a larger N"
        )
    counts_tokens = spec.validation == "tail" or spec.token_limit
    if tokenizer.startswith("bpe-") and counts_tokens:
        raise UserError(
            f"{spec.name}: is cut by GPT-2 tokens and made with gpt2 only; use another corpus or"
            " tokenizer"
        )
    if limit is None:
        return spec
    if limit < 1:
        raise UserError(f"limit = {limit}: must be at least 1")
    if not spec.sample:
        raise UserError(
            f"limit = {limit}: makes a sample of {name}; name it"
            f" {name.removesuffix(SAMPLE)}{SAMPLE}"
        )
    return spec.model_copy(update={"limit": limit})


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Hold the lock on `folder`; the system releases it when the process ends, however it ends."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with open(folder.with_name(f".{folder.name}.lock"), "a+", encoding="utf-8") as lock:
        if lock_exclusively(lock.fileno(), patience=0.0) is False:
            lock.seek(0)
            holder = lock.read() or "another process"
            print_line(f"{folder}: is being prepared by {holder}; waiting for it to end")
            lock_exclusively(lock.fileno())
        lock.truncate(0)
        lock.write(f"process {os.getpid()} on {socket.gethostname()} since {datetime.now():%F %T}")
        lock.flush()
        yield


def _make(source: Source, tokenizer: str, part: Path) -> None:
    """Write token files, tokenizer and manifest into `part`."""
    spec = source.spec
    if spec.recall:
        vocab_size, eot = tokenizer_size(tokenizer), None
        splits = _write_recall(spec, vocab_size, part)
    else:
        encoder = _make_tokenizer(source, tokenizer, part)
        vocab_size, eot = encoder.vocab_size, encoder.eot if spec.end_of_text else None
        splits = _write_text(source, encoder, eot, part)
    write_manifest(part, _manifest_entries(source, tokenizer, vocab_size, eot, splits))


def _write_text(source: Source, encoder: Tokenizer, eot: int | None, part: Path) -> dict[str, dict]:
    """Write the token files of a text; return the manifest's entries of the splits."""
    spec, encoded = source.spec, {}
    for split in spec.source_splits:
        encoded[split] = encode_split(source, split, encoder, eot, part / f"{split}.source")
        _check_complete(source, split, encoded[split])
    splits = {}
    for split, (documents, chosen) in plan_splits(spec, encoded, encoder, eot).items():
        splits[split] = documents.write(chosen, part / f"{split}.bin")
        if not splits[split]["bytes"]:
            raise UserError(
                f"{spec.name}: the {split} split would be empty; the source needs more documents"
            )
    for documents in encoded.values():
        documents.path.unlink()
    return splits


def _make_tokenizer(source: Source, tokenizer: str, part: Path) -> Tokenizer:
    """Return GPT-2's tokenizer, or train one and write it into `part`."""
    if tokenizer == "gpt2":
        return gpt2_tokenizer()
    content = _train_tokenizer(source, tokenizer)
    write_text(part / TOKENIZER_FILE, content)
    return bpe_tokenizer(content)


def _train_tokenizer(source: Source, tokenizer: str) -> str:
    """Train `bpe-<N>` on the documents that become the train split; return its tokenizer.json."""
    print_line(f"{source.spec.name}: training {tokenizer}")
    held_out: set[int] = set()
    if source.spec.validation == "permutation":
        count = sum(ends for _, ends in source.pieces("train"))
        held_out = set(permuted_split(source.spec, count)[1].tolist())

    def train_texts() -> Iterator[str]:
        document = 0
        for text, ends in source.pieces("train"):
            if document not in held_out:
                yield text
            document += ends

    return train_bpe(tokenizer, train_texts())


def _write_recall(spec: CorpusSpec, vocab_size: int, part: Path) -> dict[str, dict]:
    """Write the token files of associative recall; return the manifest's entries of the splits."""
    splits = {}
    for split, name in (("train", "train"), ("val", "validation"), ("test", "test")):
        examples = recall_examples(spec.recall, name, vocab_size)[: spec.limit]
        examples.astype("<u2").tofile(part / f"{split}.bin")
        splits[split] = {
            "documents": len(examples),
            "tokens": examples.size,
            "bytes": examples.nbytes,
            "literal_eot": 0,
            "sha256": sha256_file(part / f"{split}.bin"),
        }
    return splits


def _check_complete(source: Source, split: str, documents: Encoded) -> None:
    """Refuse a source without text, or a part that would pass for the corpus. Raises UserError."""
    spec, rows = source.spec, source.rows[split]
    if not sum(documents.bytes):
        raise UserError(
            f"{spec.name}: the {split} split of the source has no text ({rows:,} rows);"
            " give a source with text in it"
        )
    needed = spec.rows.get(split, rows)
    tokens, limit = sum(documents.tokens), spec.token_limit or 0
    if rows != needed:
        found = f"{rows:,} rows, the complete corpus {needed:,}"
    elif tokens < limit and not spec.sample:
        found = f"{tokens:,} tokens, the complete corpus {limit:,}"
    else:
        return
    raise UserError(
        f"{spec.name}: the {split} split of the source has {found}; complete it, or name a part"
        f" {spec.name}{SAMPLE}"
    )


def _manifest_entries(
    source: Source, tokenizer: str, vocab_size: int, eot: int | None, splits: dict[str, dict]
) -> dict[str, Any]:
    """Return what the manifest records of a corpus and its making."""
    spec = source.spec
    return {
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
    }
