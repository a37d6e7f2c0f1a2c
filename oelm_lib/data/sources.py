"""Where text comes from: a local folder or file, the hub, or the generator; read piece by piece."""

import gzip
import json
import re
import zlib
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from oelm_lib.data.spec import CorpusSpec
from oelm_lib.data.stories import generate_stories
from oelm_lib.errors import UserError

Piece = tuple[str, bool]
"""Text, and whether its document ends with it."""
PIECE = 1 << 20
"""Characters above which a document is read in pieces."""
KINDS = (".parquet", ".jsonl", ".txt", ".jsonl.gz", ".txt.gz")
SPLIT_NAMES = {"train": ("train",), "validation": ("validation", "valid", "val"), "test": ("test",)}
_TITLE = re.compile(r" = (?!= ).*(?<! =) = \n?")


class Source:
    """Files of each split and how to read them.

    Attributes:
        rows: Rows read so far of each split.
        fraction: Share read of the split that `pieces` is reading.
    """

    def __init__(self, spec: CorpusSpec, files: dict[str, list[str]], facts: dict[str, Any], revision: str | None):
        self.spec, self.files, self.facts, self.revision = spec, files, facts, revision
        self.rows: Counter[str] = Counter()
        self.fraction = 0.0
        missing = [split for split in spec.source_splits if not files.get(split)]
        if missing:
            found = ", ".join(sorted(Path(file).name for names in files.values() for file in names)) or "no data files"
            raise UserError(
                f"{facts.get('path') or facts.get('id')}: no {missing[0]} split for {spec.name} (found: {found});"
                f" name a folder with {', '.join(f'{split}.parquet' for split in spec.source_splits)}"
                f" (also {', '.join(KINDS[1:])}; NAME-00000-of-00002.parquet)"
            )

    def fetch(self, file: str) -> Path:
        """Where the file lies on this machine."""
        return Path(file)

    def pieces(self, split: str) -> Iterator[Piece]:
        """Yield the documents of a split, in order, long ones in pieces."""
        self.rows[split] = 0
        rows, documents = self._rows(split), 0
        if self.spec.document != "row":
            rows = _joined(rows, titles=self.spec.document == "article")
        for piece in _pieces(rows, strip=bool(self.spec.text_separator) and _is_text(self.files[split][0])):
            documents += piece[1]
            if self.spec.document == "row":
                self.rows[split] = documents
            yield piece
            if documents == self.spec.limit:
                return

    def _rows(self, split: str) -> Iterator[Piece]:
        files = self.files[split]
        for number, file in enumerate(files):
            path = self.fetch(file)
            reader = _read_parquet if path.suffix == ".parquet" else _read_lines
            for fraction, text, ends in reader(path, self.spec):
                self.fraction = (number + fraction) / len(files)
                self.rows[split] += ends
                yield text, ends


class Generated(Source):
    """The embedded corpus."""

    def __init__(self, spec: CorpusSpec):
        self.stories = generate_stories(spec.generator)
        super().__init__(spec, self.stories, {"kind": "generated"}, None)

    def _rows(self, split: str) -> Iterator[Piece]:
        for number, text in enumerate(self.stories[split]):
            self.fraction = number / len(self.stories[split])
            self.rows[split] += 1
            yield text, True


def open_source(spec: CorpusSpec, source: str | Path | None) -> Source:
    """Find the files of every split. Raises UserError where they are not there."""
    if source is None:
        if spec.generator:
            return Generated(spec)
        raise UserError(f"{spec.name}: no hub yet")
    path = Path(source)
    if path.is_file():
        if not path.name.endswith(KINDS):
            raise UserError(f"{path}: is not a text file this reads; allowed: {', '.join(KINDS)}")
        return Source(spec, {"train": [str(path)]}, {"kind": "file", "path": str(path)}, None)
    if not path.is_dir():
        raise UserError(f"{path}: no such file or folder; name one with {', '.join(spec.source_splits)} files")
    folder = path / spec.hub_config if spec.hub_config and (path / spec.hub_config).is_dir() else path
    found = sorted(file for file in folder.rglob("*") if file.is_file() and file.name.endswith(KINDS))
    files = {split: [str(file) for file in found if _is_split(file, names)] for split, names in SPLIT_NAMES.items()}
    return Source(spec, files, {"kind": "folder", "path": str(path)}, None)


def _is_split(file: Path, names: tuple[str, ...]) -> bool:
    """Whether the file is called SPLIT.kind or SPLIT-<shard>.kind, or lies in a folder called SPLIT."""
    pattern = rf"({'|'.join(names)})(-[0-9].*)?"
    stem = file.name.partition(".")[0]
    return bool(re.fullmatch(pattern, stem)) or file.parent.name in names


def _read_parquet(path: Path, spec: CorpusSpec) -> Iterator[tuple[float, str, bool]]:
    """Yield (share read, text, True) of each row."""
    import pyarrow
    import pyarrow.parquet

    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            fields = file.schema_arrow
            if spec.text_field not in fields.names:
                raise UserError(
                    f"{path}: no column {spec.text_field!r} (found: {', '.join(fields.names)});"
                    f" rename the column, or set text_field in params/corpora/"
                )
            total, row = file.metadata.num_rows, 0
            for batch in file.iter_batches(batch_size=256, columns=[spec.text_field]):
                for value in batch.column(0):
                    try:
                        text = value.as_py()
                    except UnicodeDecodeError as error:
                        raise _not_utf8(f"{path}: row {row}, byte {error.start} of its text") from None
                    if not isinstance(text, str):
                        raise UserError(f"{path}: row {row} of {spec.text_field!r} holds {text!r}, not text; remove it")
                    row += 1
                    yield row / total, text, True
    except (pyarrow.ArrowException, OSError) as error:
        raise UserError(f"{path}: not a whole Parquet file ({error}); copy or download it again") from None


def _read_lines(path: Path, spec: CorpusSpec) -> Iterator[tuple[float, str, bool]]:
    """Yield (share read, text, whether the row ends) of a JSON-lines or plain-text file, gzipped or not."""
    size = path.stat().st_size or 1
    try:
        with open(path, "rb") as raw:
            file = gzip.open(raw) if path.suffix == ".gz" else raw
            if not _is_text(path.name):
                rows = _json_rows(path, file, spec)
            elif spec.document == "row":
                rows = _split_rows(_decoded(path, file), spec.text_separator)
            else:
                rows = ((line, True) for line in _lines(_decoded(path, file)))
            for text, ends in rows:
                yield raw.tell() / size, text, ends
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise UserError(f"{path}: not a whole gzip file ({error}); copy or download it again") from None


def _is_text(name: str) -> bool:
    return name.removesuffix(".gz").endswith(".txt")


def _json_rows(path: Path, file: Any, spec: CorpusSpec) -> Iterator[Piece]:
    offset = 0
    for number, line in enumerate(file, start=1):
        try:
            text = json.loads(line)[spec.text_field]
            text.encode()
        except UnicodeDecodeError as error:
            raise _not_utf8(f"{path}: byte {offset + error.start}") from None
        except UnicodeEncodeError:
            raise _not_utf8(f"{path}: line {number} (a lone surrogate)") from None
        except (ValueError, TypeError, KeyError, AttributeError):
            raise UserError(
                f"{path}: line {number} is not a JSON object with text in {spec.text_field!r}; mend the line"
            ) from None
        offset += len(line)
        yield text, True


def _decoded(path: Path, file: Any) -> Iterator[str]:
    """Text in blocks; a character that a block cuts goes to the next."""
    offset, rest = 0, b""
    while block := file.read(PIECE):
        data = rest + block
        try:
            text, rest = data.decode(), b""
        except UnicodeDecodeError as error:
            # A sequence that may go on in the next block starts in the last three bytes.
            if error.reason != "unexpected end of data" or len(data) - error.start > 3:
                raise _not_utf8(f"{path}: byte {offset + error.start}") from None
            text, rest = data[: error.start].decode(), data[error.start :]
        offset += len(data) - len(rest)
        yield text
    if rest:
        raise _not_utf8(f"{path}: byte {offset}")


def _lines(blocks: Iterator[str]) -> Iterator[str]:
    """Lines with their ends."""
    rest = ""
    for block in blocks:
        *lines, rest = (rest + block).split("\n")
        yield from (line + "\n" for line in lines)
    if rest:
        yield rest


def _split_rows(blocks: Iterator[str], separator: str | None) -> Iterator[Piece]:
    """What lies between separators, in parts; without a separator all is one row."""
    rest = ""
    for block in blocks:
        rest += block
        if separator:
            *rows, rest = rest.split(separator)
            yield from ((row, True) for row in rows)
        # What may be the start of a separator waits for the next block.
        known = len(rest) - len(separator or "")
        if known > 0:
            yield rest[:known], False
            rest = rest[known:]
    yield rest, True


def _joined(rows: Iterator[Piece], titles: bool) -> Iterator[Piece]:
    """Join rows to one document, or to one from each WikiText title to the next."""
    begun = False
    for text, _ in rows:
        if begun and titles and _TITLE.fullmatch(text):
            yield "", True
        yield text, False
        begun = True
    if begun:
        yield "", True


def _pieces(rows: Iterator[Piece], strip: bool) -> Iterator[Piece]:
    """Cut long documents into pieces that encode to the same ids as the whole.

    No pattern of the tokenizers matches across a place where white space follows something else, and none looks
    back. `strip` takes white space from the ends of documents and leaves empty ones out.
    """
    rest, begun = "", False
    for text, ends in rows:
        rest += text
        if strip and not begun:
            rest = rest.lstrip()
        while len(rest) > 2 * PIECE:
            head, *tail = rest[:PIECE].rsplit(maxsplit=1)
            # Python counts the separators U+001C .. U+001F as white space, the patterns do not.
            if not tail or rest[len(head)] in "\x1c\x1d\x1e\x1f":
                break
            yield head, False
            rest, begun = rest[len(head) :], True
        if ends:
            rest = rest.rstrip() if strip else rest
            if rest or begun or not strip:
                yield rest, True
            rest, begun = "", False
