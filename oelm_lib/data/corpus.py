"""A prepared corpus: token files beside a manifest that holds their sizes and hashes."""

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from oelm_lib.config import Experiment, data_dir
from oelm_lib.errors import UserError
from oelm_lib.files import sha256_file, sha256_json, with_checksum, write_json

FORMAT = 1
MANIFEST = "manifest.json"
TOKENIZER_FILE = "tokenizer.json"
_CONTENT_KEYS = ("corpus", "tokenizer", "vocab_size", "eot", "splits", "tokenizer_sha256")


def epoch_steps(tokens: int, length: int, batch_size: int) -> int:
    """Return the whole batches in one pass over a train split of so many tokens."""
    return (tokens - 1) // length // batch_size


def epochs_read(experiment: Experiment, tokens: int) -> float | None:
    """Return how often a run reads a train split of so many tokens; None where it is too short."""
    steps = epoch_steps(tokens, experiment.model.max_seq_len, experiment.train.batch_size)
    return experiment.train.max_steps / steps if steps else None


class RecallExamples(NamedTuple):
    """How the examples of associative recall (data/mqar.py) lie in the tokens of a corpus."""

    length: int
    """Tokens of an example."""
    pairs: int
    """Keys of an example, each with its value; as many tokens are scored."""
    end_of_keys: int
    """First id that is no key."""

    @property
    def first_query(self) -> int:
        """Tokens of an example before its queries begin: all keys and values."""
        return 2 * self.pairs


@dataclass(frozen=True)
class Corpus:
    """One corpus in one tokenizer, checked against its manifest.

    Attributes:
        name: Name of the corpus file.
        tokenizer: `gpt2`, `bpe-<N>` or `ids-<N>`.
        path: Folder of the token files.
        manifest: Content of manifest.json (docs/file-formats.md).
    """

    name: str
    tokenizer: str
    path: Path
    manifest: dict[str, Any]

    @property
    def manifest_sha256(self) -> str:
        """SHA-256 of the manifest's entries about content: the same for the same text."""
        return sha256_json({key: self.manifest[key] for key in _CONTENT_KEYS})

    @property
    def vocab_size(self) -> int:
        """Number of tokens in the vocabulary, end-of-text included."""
        return self.manifest["vocab_size"]

    @property
    def eot(self) -> int | None:
        """Id that ends each document; None: the corpus has no separators."""
        return self.manifest["eot"]

    @property
    def recall(self) -> RecallExamples | None:
        """Examples of associative recall; None: the corpus is text."""
        rules = self.manifest["split_rules"].get("recall")
        if not rules:
            return None
        return RecallExamples(rules["length"], rules["pairs"], end_of_keys=self.vocab_size // 2)

    def block_tokens(self, length: int) -> int:
        """Return the scored tokens that count as a document in a corpus without end-of-text.

        An example of associative recall has one per pair; other text is taken in windows.

        Args:
            length: T, tokens of a window.
        """
        return self.recall.pairs if self.recall else length

    def tokens(self, split: str) -> np.memmap:
        """Return the token ids of "train" or "val"; only open_test opens the test split."""
        if split not in ("train", "val"):
            raise ValueError(
                f"split = {split!r}: training reads train and val only; open_test reads test"
            )
        return np.memmap(self.path / f"{split}.bin", dtype="<u2", mode="r")


def read_corpus(name: str, tokenizer: str, hashed: bool = True) -> Corpus:
    """Read a prepared corpus and check its train and val files.

    Args:
        name: Name of the corpus.
        tokenizer: The tokenizer it was prepared with.
        hashed: Whether to compare SHA-256 too, about a second a gigabyte; sizes always are.

    Raises:
        UserError: The manifest or a file is not what preparing wrote.
    """
    path = data_dir() / name / tokenizer
    try:
        manifest = json.loads((path / MANIFEST).read_bytes())
        made = tuple(manifest[key] for key in ("format", "corpus", "tokenizer"))
        if made != (FORMAT, name, tokenizer) or manifest != with_checksum(manifest):
            raise ValueError("not the manifest of this corpus")  # worded below
        for split in ("train", "val"):
            _check_file(path, manifest, split, hashed)
        if manifest["tokenizer_file"] and not (path / manifest["tokenizer_file"]).is_file():
            raise UserError(
                f"{path / manifest['tokenizer_file']}: is missing; copy it too, or {_remedy(path)}"
            )
    except UserError:
        raise
    except OSError as error:
        raise UserError(
            f"{error.filename or path / MANIFEST}: cannot be read ({error.strerror}); check the"
            f" name and its rights, or {_remedy(path)}"
        ) from None
    except (ValueError, KeyError, TypeError, RecursionError):
        raise UserError(
            f"{path / MANIFEST}: is not what preparing {name} with {tokenizer} wrote (edited, moved"
            f" or of another format); {_remedy(path)}"
        ) from None
    return Corpus(name, tokenizer, path, manifest)


def check_has_test(corpus: Corpus) -> None:
    """Raise UserError where the corpus has no test split."""
    if "test" not in corpus.manifest["splits"]:
        raise UserError(
            f"{corpus.name}: has no test split (params/corpora/{corpus.name}.yaml: test: none);"
            " use val"
        )


def open_test(corpus: Corpus) -> np.memmap:
    """Return the token ids of the test split: for a confirmation run's end, never for selection.

    Raises:
        UserError: The corpus has no test split, or its file is not the manifest's.
    """
    check_has_test(corpus)
    _check_file(corpus.path, corpus.manifest, "test")
    return np.memmap(corpus.path / "test.bin", dtype="<u2", mode="r")


def write_manifest(path: Path, facts: dict[str, Any]) -> None:
    """Write the manifest of a folder of token files, last of all.

    Args:
        path: The folder; its token files are flushed to disk first.
        facts: Entries of the manifest but those of the tokenizer's file and the checksum.
    """
    for file in path.glob("*.bin"):
        with open(file, "rb") as content:
            os.fsync(content.fileno())
    trained = path / TOKENIZER_FILE
    manifest = facts | {
        "tokenizer_file": TOKENIZER_FILE if trained.is_file() else None,
        "tokenizer_sha256": sha256_file(trained) if trained.is_file() else None,
    }
    write_json(path / MANIFEST, manifest, checksum=True)


def _check_file(path: Path, manifest: dict[str, Any], split: str, hashed: bool = True) -> None:
    """Compare one token file with the manifest. Raises UserError."""
    file, facts = path / f"{split}.bin", manifest["splits"][split]
    size = file.stat().st_size if file.is_file() else None
    if size != 2 * facts["tokens"]:
        raise UserError(
            f"{file}: {'is missing' if size is None else f'has {size} bytes'}, the manifest says"
            f" {2 * facts['tokens']} bytes; {_remedy(path)}"
        )
    if not size:
        raise UserError(f"{file}: the {split} split has no tokens; {_remedy(path)}")
    if hashed and sha256_file(file) != facts["sha256"]:
        raise UserError(f"{file}: its SHA-256 is not the manifest's; {_remedy(path)}")


def _remedy(path: Path) -> str:
    return f"delete {path} and run `oelm data prepare {path.parent.name} --tokenizer {path.name}`"
