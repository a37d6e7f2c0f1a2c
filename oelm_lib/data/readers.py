"""Rows of Parquet, JSON-lines and plain-text files, read in bounded memory."""

import codecs
import contextlib
import gzip
import json
import os
import re
import zlib
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import Any, BinaryIO

from oelm_lib.data.spec import CorpusSpec
from oelm_lib.errors import UserError

Piece = tuple[str, bool]
"""Text, and whether its row or document ends with it."""
KINDS = (".parquet", ".jsonl", ".txt", ".jsonl.gz", ".txt.gz")
"""Endings of the files that can be read."""
_REPEATED = object()
"""Text of a JSON line that gives it twice."""
BLOCK = 1 << 20
"""Bytes of a text file that are read at a time, and characters after which a document is cut."""
LINE_BYTES = 1 << 28
"""Longest line of a JSON-lines or WikiText file."""
BATCH_BYTES = 1 << 25
"""Text of a Parquet file that is decoded at a time, by the mean size of a row."""
PAGE_BYTES, PAGE_RATIO = 1 << 28, 200
"""A Parquet row group above both limits, unpacked bytes and their ratio to its size, is refused.

Real text does not compress that well, and pages are unpacked whole.
"""


def read_rows(path: Path, spec: CorpusSpec) -> Iterator[tuple[float, str, bool]]:
    """Read a file row by row.

    Args:
        path: A file with one of the endings KINDS.
        spec: Says which field holds the text and what divides the rows of a text file.

    Yields:
        Share of the file read so far, text, whether its row ends with it.

    Raises:
        UserError: What is wrong with the file, with the row, line or byte.
    """
    return _parquet_rows(path, spec) if path.suffix == ".parquet" else _text_rows(path, spec)


def is_text(path: str) -> bool:
    """Whether the file is plain text, gzipped or not."""
    return path.removesuffix(".gz").endswith(".txt")


@contextlib.contextmanager
def open_bytes(path: Path) -> Iterator[BinaryIO]:
    """Open a text file, gzipped or not; a damaged one is a UserError while it is read."""
    try:
        with open(path, "rb") as raw:
            yield gzip.open(raw) if path.suffix == ".gz" else raw
    except (EOFError, zlib.error, OSError) as error:
        raise not_readable(path, error) from None


def _parquet_rows(path: Path, spec: CorpusSpec) -> Iterator[tuple[float, str, bool]]:
    import pyarrow
    import pyarrow.parquet

    field, row = spec.text_field, 0
    try:
        # An open file in place of a path: pyarrow refuses paths that are not UTF-8.
        with open(path, "rb") as raw:
            _check_parquet(path, pyarrow.parquet.ParquetFile(raw), spec)
            # As a dictionary, text that is stored once for many rows takes memory once.
            file = pyarrow.parquet.ParquetFile(raw, read_dictionary=[field])
            batch_rows = _parquet_batch_rows(path, file.metadata, field)
            for batch in file.iter_batches(batch_size=batch_rows, columns=[field]):
                for value in batch.column(0):
                    text = value.as_py()
                    if text is None:
                        raise UserError(f"{path}: row {row} of {field!r} is null; remove it")
                    row += 1
                    yield row / file.metadata.num_rows, text, True
    except UnicodeDecodeError as error:
        raise _not_utf8(f"{path}: row {row}, byte {error.start} of its text") from None
    except (pyarrow.ArrowException, OSError) as error:
        raise not_readable(path, error) from None


def _check_parquet(path: Path, file: Any, spec: CorpusSpec) -> None:
    """Raise UserError where the file has no column of text."""
    import pyarrow

    field, schema = spec.text_field, file.schema_arrow
    if schema.names.count(field) != 1:
        count = "more than one" if field in schema.names else "no"
        raise UserError(
            f"{path}: {count} column {field!r} (found: {', '.join(schema.names)[:200]});"
            f" rename it, or set text_field in params/corpora/{spec.name}.yaml"
        )
    kind = schema.field(field).type
    kind = kind.value_type if pyarrow.types.is_dictionary(kind) else kind
    if kind not in (pyarrow.string(), pyarrow.large_string(), pyarrow.string_view()):
        raise UserError(
            f"{path}: column {field!r} holds {str(kind)[:80]}, not text (string); convert it"
        )


def _parquet_batch_rows(path: Path, metadata: Any, field: str) -> int:
    """Return how many rows to decode at a time. Raises UserError where a row group is too large."""
    size = 0
    for group in map(metadata.row_group, range(metadata.num_row_groups)):
        columns = map(group.column, range(metadata.num_columns))
        column = next(column for column in columns if column.path_in_schema == field)
        unpacked, packed = column.total_uncompressed_size, column.total_compressed_size
        if unpacked > max(PAGE_BYTES, PAGE_RATIO * packed):
            raise UserError(
                f"{path}: a row group of {packed:,} bytes unpacks to {unpacked:,}; above"
                f" {PAGE_RATIO} times its size at most {PAGE_BYTES:,} are allowed; write it in"
                " smaller row groups"
            )
        size += unpacked
    return max(1, min(256, BATCH_BYTES * metadata.num_rows // max(size, 1)))


def _text_rows(path: Path, spec: CorpusSpec) -> Iterator[tuple[float, str, bool]]:
    """Read a JSON-lines or plain-text file, gzipped or not."""
    with open_bytes(path) as file:
        raw = file.fileobj if isinstance(file, gzip.GzipFile) else file
        size = os.fstat(raw.fileno()).st_size or 1
        if not is_text(path.name):
            rows = _json_rows(path, file, spec.text_field)
        elif spec.document == "row":
            rows = _split_rows(_blocks(path, file), spec.text_separator)
        else:
            rows = ((line, True) for _, line in _lines(path, file))
        for text, ends in rows:
            yield raw.tell() / size, text, ends


def _lines(path: Path, file: BinaryIO) -> Iterator[tuple[int, str]]:
    """Yield (number, text) of each line with its end; the byte-order mark is left out."""
    offset = 0
    for number, line in enumerate(iter(lambda: file.readline(LINE_BYTES), b""), start=1):
        if len(line) == LINE_BYTES:
            raise UserError(
                f"{path}: line {number} is longer than {LINE_BYTES:,} bytes; divide it, or"
                " convert the file to Parquet"
            )
        try:
            text = line.decode()
        except UnicodeDecodeError as error:
            raise _not_utf8(f"{path}: byte {offset + error.start}") from None
        offset += len(line)
        yield number, text.removeprefix("\ufeff") if number == 1 else text


def _json_rows(path: Path, file: BinaryIO, field: str) -> Iterator[Piece]:
    """The text of each JSON line; blank lines are left out, as datasets and pandas do."""

    def as_dict(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        repeated = sum(key == field for key, _ in pairs) > 1
        return dict(pairs) | ({field: _REPEATED} if repeated else {})

    for number, line in _lines(path, file):
        if not line.strip():
            continue
        try:
            # Numbers are not needed, and Python refuses those of more than 4300 digits.
            text = json.loads(line, parse_int=lambda digits: None, object_pairs_hook=as_dict)[field]
        except (ValueError, TypeError, KeyError, RecursionError):
            text = None
        if text is _REPEATED:
            raise UserError(f"{path}: line {number}: gives {field!r} twice; keep one")
        if not isinstance(text, str):
            raise UserError(
                f"{path}: line {number} is not a JSON object with text in {field!r}; correct it"
            )
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise UserError(
                f"{path}: line {number}: its text holds a lone surrogate"
                f" (\\u{ord(text[error.start]):04x}, half of a character); remove it"
            ) from None
        yield text, True


def _blocks(path: Path, file: BinaryIO) -> Iterator[str]:
    """Yield the text in blocks; a character that a block cuts goes to the next."""
    decoder, offset = codecs.getincrementaldecoder("utf-8")(), 0
    for block in chain(iter(lambda: file.read(BLOCK), b""), [b""]):
        start = offset - len(decoder.getstate()[0])
        try:
            text = decoder.decode(block, final=not block)
        except UnicodeDecodeError as error:
            raise _not_utf8(f"{path}: byte {start + error.start}") from None
        if not offset:
            text = text.removeprefix("\ufeff")
            if block[:4096].count(0) > len(block[:4096]) // 4:
                raise _not_utf8(f"{path}: is full of zero bytes (UTF-16?), which")
        offset += len(block)
        yield text


def _split_rows(blocks: Iterator[str], separator: str | None) -> Iterator[Piece]:
    """Yield the text between separators, in parts; without a separator all text is one row.

    A newline in the separator matches the end of a line on Windows (CR LF) too.
    """
    pattern = re.compile(re.escape(separator or "").replace("\\\n", "\r?\n"))
    longest = len(separator or "") + (separator or "").count("\n")
    rest = ""
    for block in blocks:
        rest += block
        if separator:
            *rows, rest = pattern.split(rest)
            yield from ((row, True) for row in rows)
        # What may be the start of a separator waits for the next block.
        complete = max(0, len(rest) - longest)
        yield rest[:complete], False
        rest = rest[complete:]
    yield rest, True


def not_readable(path: Path, error: Exception) -> UserError:
    """Return the error for a user whose file is damaged or closed to them."""
    if isinstance(error, PermissionError):
        return UserError(f"{path}: permission denied; ask its owner for access")
    reason = str(error)[:200]
    return UserError(f"{path}: cannot be read as a whole ({reason}); copy or download it again")


def _not_utf8(where: str) -> UserError:
    return UserError(f"{where} is not valid UTF-8; convert the text, or remove that document")
