"""A prepared corpus: token files beside a manifest that vouches for them."""

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from oelm_lib.config import SIZES, Experiment, data_dir, experiment_ids, load_config
from oelm_lib.errors import UserError
from oelm_lib.files import sha256_file, sha256_json

FORMAT = 1
MANIFEST = "manifest.json"


@dataclass(frozen=True)
class Corpus:
    """One corpus in one tokenizer, checked against its manifest.

    Attributes:
        path: Folder of the token files.
        manifest: Content of manifest.json (docs/design.md).
    """

    name: str
    tokenizer: str
    path: Path
    manifest: dict[str, Any]

    @property
    def manifest_sha256(self) -> str:
        """SHA-256 of what the manifest says of the content; the same when made anew from the same text."""
        told = ("corpus", "tokenizer", "vocab_size", "eot", "splits", "tokenizer_sha256")
        return sha256_json({key: self.manifest[key] for key in told})

    @property
    def vocab_size(self) -> int:
        """Tokens in the vocabulary, end-of-text included."""
        return self.manifest["vocab_size"]

    @property
    def eot(self) -> int | None:
        """Id that ends each document; None: the corpus has no separators."""
        return self.manifest["eot"]

    @property
    def recall(self) -> tuple[int, int] | None:
        """Of associative recall: the first id that is no key, and the tokens before the first query; else None."""
        rules = self.manifest["split_rules"].get("recall")
        return (self.vocab_size // 2, 2 * rules["pairs"]) if rules else None

    def tokens(self, split: str) -> np.memmap:
        """Token ids of "train" or "val"; the test split is opened by open_test alone."""
        if split not in ("train", "val"):
            raise ValueError(
                f"split = {split!r}: training reads train and val only; open_test reads test"
            )
        return np.memmap(self.path / f"{split}.bin", dtype="<u2", mode="r")


def open_corpus(name: str, tokenizer: str, exp: Experiment | None = None) -> Corpus:
    """Open a prepared corpus and hash its train and val files (about a second a gigabyte).

    One that is not there yet is prepared: `stories` is generated, others are read from the hub. A second process that
    needs it meanwhile waits.

    Args:
        exp: The experiment that needs it, for the ways on that an error names.

    Raises:
        UserError: Unknown corpus, a file that the manifest does not vouch for, no hub.
    """
    if (data_dir() / name / tokenizer / MANIFEST).is_file():
        return read_corpus(name, tokenizer)
    from oelm_lib.data.prepare import prepare
    from oelm_lib.data.sources import HubError

    try:
        return prepare(name, tokenizer=tokenizer, wait=True)
    except HubError as error:
        raise UserError(f"{error}{_ways_on(exp)}") from None


def check_has_test(corpus: Corpus) -> None:
    """Raise UserError where the corpus has no test split."""
    if "test" not in corpus.manifest["splits"]:
        raise UserError(
            f"{corpus.name}: has no test split (params/corpora/{corpus.name}.yaml: test: none); use val"
        )


def open_test(corpus: Corpus) -> np.memmap:
    """Token ids of the test split: for a confirmation run's end, never for selection."""
    check_has_test(corpus)
    _check_file(corpus.path, corpus.manifest, "test")
    return np.memmap(corpus.path / "test.bin", dtype="<u2", mode="r")


def read_corpus(name: str, tokenizer: str, hashed: bool = True) -> Corpus:
    """Read manifest.json and check size and (unless `hashed` is False) SHA-256 of train and val. Raises UserError."""
    path = data_dir() / name / tokenizer
    content = (path / MANIFEST).read_bytes()
    try:
        manifest = json.loads(content)
        intact = manifest["format"] == FORMAT and manifest["checksum"] == checksum(manifest)
        if intact and (manifest["corpus"], manifest["tokenizer"]) == (name, tokenizer):
            for split in ("train", "val"):
                _check_file(path, manifest, split, hashed)
            if manifest["tokenizer_file"] and not (path / manifest["tokenizer_file"]).is_file():
                raise UserError(
                    f"{path / manifest['tokenizer_file']}: is missing; copy it too, or {_remedy(path)}"
                )
            return Corpus(name, tokenizer, path, manifest)
    except UserError:
        raise
    except (ValueError, KeyError, TypeError):
        pass
    raise UserError(
        f"{path / MANIFEST}: is not what preparing {name} with {tokenizer} wrote (edited, moved or of another"
        f" format); {_remedy(path)}"
    )


def checksum(manifest: dict[str, Any]) -> str:
    """SHA-256 of everything in the manifest but its checksum."""
    return sha256_json({key: value for key, value in manifest.items() if key != "checksum"})


def _check_file(path: Path, manifest: dict[str, Any], split: str, hashed: bool = True) -> None:
    """Compare one token file with the manifest. Raises UserError."""
    file, facts = path / f"{split}.bin", manifest["splits"][split]
    size = file.stat().st_size if file.is_file() else None
    if size != 2 * facts["tokens"]:
        raise UserError(
            f"{file}: has {size} bytes, the manifest says {2 * facts['tokens']}; {_remedy(path)}"
        )
    if hashed and sha256_file(file) != facts["sha256"]:
        raise UserError(f"{file}: its SHA-256 is not the manifest's; {_remedy(path)}")


def _ways_on(exp: Experiment | None) -> str:
    """What else can be run without the corpus: a rehearsal, and the demo whose Q and K are alike."""
    if exp is None:
        return ""
    ways = f"; or rehearse: `oelm run {exp.id} --set data.corpus=stories --set train.max_steps=10`"
    arm = type(exp.model).model_fields.keys() - set(SIZES)
    for demo in map(load_config, filter(re.compile("DEMO-").match, experiment_ids())):
        if all(getattr(demo.model, key) == getattr(exp.model, key) for key in arm):
            return f"{ways}; or the same arm at demo size: `oelm run {demo.id}`"
    return ways


def _remedy(path: Path) -> str:
    return f"delete {path} and run `oelm data prepare {path.parent.name} --tokenizer {path.name}`"
