"""Text of a corpus, split by split: from local files, the hub, or a generator."""

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from oelm_lib.data.documents import cut_documents, join_rows
from oelm_lib.data.folder import find_splits, printable
from oelm_lib.data.hub import find_hub_files
from oelm_lib.data.readers import KINDS, Piece, is_text, read_rows
from oelm_lib.data.spec import CorpusSpec
from oelm_lib.data.stories import generate_stories
from oelm_lib.errors import UserError


@dataclass
class Source:
    """Files of each split, read as documents.

    Attributes:
        spec: The corpus file.
        files: Split -> its files, also of splits that the corpus file does not read.
        facts: Where the text comes from, for the manifest.
        fetch: Returns the place of a file on this machine; downloads it where needed.
        stories: Split -> its documents, where these are generated.
        notes: Lines for the user about the files that were found.
        rows: Number of rows read of each split.
        fraction: Share read of the split that `pieces` reads.
    """

    spec: CorpusSpec
    files: dict[str, list[str]]
    facts: dict[str, Any]
    fetch: Callable[[str], Path] = Path
    stories: dict[str, list[str]] | None = None
    notes: list[str] = field(default_factory=list)
    rows: Counter[str] = field(default_factory=Counter)
    fraction: float = 0.0

    def pieces(self, split: str) -> Iterator[Piece]:
        """Yield the documents of a split, in order, long ones in pieces."""
        self.rows[split] = documents = 0
        rows = self._rows(split)
        strip = bool(self.spec.text_separator) and is_text(self.files[split][0])
        if self.spec.document != "row":
            rows = join_rows(rows, articles=self.spec.document == "article")
        for text, ends in cut_documents(rows, strip):
            documents += ends
            if self.spec.document == "row":  # without empty rows, as after the last separator
                self.rows[split] = documents
            yield text, ends
            if documents == self.spec.limit:
                return

    def _rows(self, split: str) -> Iterator[Piece]:
        """Yield the rows of a split."""
        if self.stories:
            yield from ((story, True) for story in self.stories[split])
            return
        for number, file in enumerate(self.files[split]):
            for fraction, text, ends in read_rows(self.fetch(file), self.spec):
                self.fraction = (number + fraction) / len(self.files[split])
                if self.spec.document != "row":
                    self.rows[split] += ends
                yield text, ends


def open_source(spec: CorpusSpec, source: str | Path | None) -> Source:
    """Find the files of every split.

    Args:
        spec: The corpus file.
        source: Folder or file; None: the hub, or the generator.

    Raises:
        UserError: A split has no files, or it is not clear which files make it up.
    """
    if spec.generator or spec.recall:
        if source is not None:
            raise UserError(
                f"{spec.name}: is generated, not read from {source}; leave --source out"
            )
        stories = generate_stories(spec.generator) if spec.generator else None
        return Source(spec, {}, {"kind": "generated"}, stories=stories)
    if source is None:
        files, fetch, revision = find_hub_files(spec)
        facts = {"kind": "hub", "id": spec.hub, "config": spec.hub_config, "revision": revision}
        return Source(spec, _complete(spec, files, spec.hub), facts, fetch)
    path = Path(source)
    if path.is_file() and path.name.endswith(KINDS):
        files = _complete(spec, {"train": [str(path)]}, path)
        return Source(spec, files, {"kind": "file", "path": printable(path)})
    if not path.is_dir():
        state = "is not text that can be read" if path.exists() else "no such file or folder"
        raise UserError(
            f"{path}: {state}; name a folder, or a file that ends in {', '.join(KINDS)}"
            " (from CSV make JSON lines: docs/own-corpus.md)"
        )
    files, notes = find_splits(path, spec)
    facts = {"kind": "folder", "path": printable(path)}
    return Source(spec, _complete(spec, files, path), facts, notes=notes)


def _complete(spec: CorpusSpec, files: dict[str, list[str]], place: Any) -> dict[str, list[str]]:
    """Return the files. Raises UserError where a split has none."""
    missing = [split for split in spec.source_splits if not files.get(split)]
    if not missing:
        return files
    names = sorted(Path(file).name for paths in files.values() for file in paths)
    found = ", ".join(names[:8]) + (f" and {len(names) - 8} more" if len(names) > 8 else "")
    raise UserError(
        f"{place}: no {' and no '.join(missing)} file for {spec.name} (found: {found or 'none'});"
        f" name a folder with {', '.join(f'{split}.parquet' for split in spec.source_splits)}"
        f" (or {', '.join(KINDS[1:])}; also parts: train-00000-of-00002.parquet)"
    )
