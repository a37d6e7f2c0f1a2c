"""Rows of Parquet, JSON-lines and plain-text files, and documents made of rows, in bounded memory."""

import codecs
import gzip
import json
import re
import zlib
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import Any

from oelm_lib.data.spec import CorpusSpec
from oelm_lib.errors import UserError

Piece = tuple[str, bool]
"""Text, and whether its row or document ends with it."""
KINDS = (".parquet", ".jsonl", ".txt", ".jsonl.gz", ".txt.gz")
PIECE = 1 << 20
"""Characters that a block of a text file and a piece of a long document have."""
_TITLE = re.compile(r" = [^=].* = \n?")


def read_rows(path: Path, spec: CorpusSpec) -> Iterator[tuple[float, str, bool]]:
    """Yield (share of the file read, text, whether the row ends). Raises UserError with the place of what is wrong."""
    return _read_parquet(path, spec) if path.suffix == ".parquet" else _read_lines(path, spec)


def is_text(path: str) -> bool:
    """Whether the file is plain text, gzipped or not."""
    return path.removesuffix(".gz").endswith(".txt")


def _read_parquet(path: Path, spec: CorpusSpec) -> Iterator[tuple[float, str, bool]]:
    import pyarrow
    import pyarrow.parquet

    row = 0
    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            columns = file.schema_arrow.names
            if spec.text_field not in columns:
                raise UserError(
                    f"{path}: no column {spec.text_field!r} (found: {', '.join(columns)});"
                    f" rename it, or set text_field in params/corpora/{spec.name}.yaml"
                )
            for batch in file.iter_batches(batch_size=256, columns=[spec.text_field]):
                for value in batch.column(0):
                    text = value.as_py()
                    if not isinstance(text, str):
                        raise UserError(
                            f"{path}: row {row} of {spec.text_field!r} holds {text!r}, not text; remove it"
                        )
                    row += 1
                    yield row / file.metadata.num_rows, text, True
    except UnicodeDecodeError as error:
        raise _not_utf8(f"{path}: row {row}, byte {error.start} of its text") from None
    except (pyarrow.ArrowException, OSError) as error:
        raise _not_whole(path, error) from None


def _read_lines(path: Path, spec: CorpusSpec) -> Iterator[tuple[float, str, bool]]:
    size = path.stat().st_size or 1
    try:
        with open(path, "rb") as raw:
            file = gzip.open(raw) if path.suffix == ".gz" else raw
            if is_text(path.name) and spec.document == "row":
                rows = _split_rows(_decoded(path, file), spec.text_separator)
            else:
                rows = _lines(path, file, None if is_text(path.name) else spec.text_field)
            for text, ends in rows:
                yield raw.tell() / size, text, ends
    except (EOFError, zlib.error, OSError) as error:
        raise _not_whole(path, error) from None


def _lines(path: Path, file: Any, field: str | None) -> Iterator[Piece]:
    """Lines with their ends, or what JSON lines hold in `field`."""
    offset = 0
    for number, line in enumerate(file, start=1):
        try:
            text = json.loads(line)[field] if field else line.decode()
            text.encode()
        except UnicodeDecodeError as error:
            raise _not_utf8(f"{path}: byte {offset + error.start}") from None
        except (ValueError, TypeError, KeyError, AttributeError):
            raise UserError(
                f"{path}: line {number} is not a JSON object with text in {field!r}; mend it"
            ) from None
        offset += len(line)
        yield text, True


def _decoded(path: Path, file: Any) -> Iterator[str]:
    """Text in blocks; a character that a block cuts goes to the next."""
    decoder, offset = codecs.getincrementaldecoder("utf-8")(), 0
    for block in chain(iter(lambda: file.read(PIECE), b""), [b""]):
        begun = offset - len(decoder.getstate()[0])
        try:
            yield decoder.decode(block, final=not block)
        except UnicodeDecodeError as error:
            raise _not_utf8(f"{path}: byte {begun + error.start}") from None
        offset += len(block)


def _not_whole(path: Path, error: Exception) -> UserError:
    return UserError(f"{path}: cannot be read as a whole ({error}); copy or download it again")


def _not_utf8(where: str) -> UserError:
    return UserError(f"{where} is not valid UTF-8; convert the text, or remove that document")


def _split_rows(blocks: Iterator[str], separator: str | None) -> Iterator[Piece]:
    """What lies between separators, in parts; without a separator all is one row."""
    rest = ""
    for block in blocks:
        rest += block
        if separator:
            *rows, rest = rest.split(separator)
            yield from ((row, True) for row in rows)
        # What may be the start of a separator waits for the next block.
        known = max(0, len(rest) - len(separator or ""))
        yield rest[:known], False
        rest = rest[known:]
    yield rest, True


def join_rows(rows: Iterator[Piece], articles: bool) -> Iterator[Piece]:
    """Join rows to one document, or to WikiText articles: a title is a ` = Title = ` row between blank rows."""
    before, begun = "", False
    texts = (text for text, _ in rows)
    text = next(texts, None)
    while text is not None:
        after = next(texts, None)
        if (
            articles
            and begun
            and not before.strip()
            and not (after or "").strip()
            and _TITLE.fullmatch(text)
        ):
            yield "", True
        yield text, False
        before, text, begun = text, after, begun or bool(text.strip())
    yield "", True


def cut_documents(rows: Iterator[Piece], strip: bool) -> Iterator[Piece]:
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
            head, *tail = rest[:PIECE].rsplit(maxsplit=1) or [""]
            # Python takes U+001C .. U+001F for white space, the patterns do not.
            if not tail or rest[len(head)] in "\x1c\x1d\x1e\x1f":
                break
            yield head, False
            rest, begun = rest[len(head) :], True
        if ends:
            rest = rest.rstrip() if strip else rest
            if rest or begun or not strip:
                yield rest, True
            rest, begun = "", False
