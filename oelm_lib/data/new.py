"""A corpus file for a user's own text: rules proposed from the text, written, then prepared."""

import contextlib
import json
import re
from collections import Counter
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from oelm_lib.config import CORPUS_PATTERN, data_dir
from oelm_lib.data.corpus import Corpus
from oelm_lib.data.folder import printable
from oelm_lib.data.preparation import prepare
from oelm_lib.data.progress import print_line
from oelm_lib.data.readers import LINE_BYTES, is_text, not_readable, open_bytes
from oelm_lib.data.source import Source, open_source
from oelm_lib.data.spec import GUIDE, CorpusSpec, corpus_names, corpus_path
from oelm_lib.data.tokenizer import END_OF_TEXT, TooLittleTextError
from oelm_lib.errors import UserError
from oelm_lib.files import as_user_error, write_text
from oelm_lib.yaml_text import dump_yaml

HEAD = 1 << 20
"""Bytes at the start of a text file that are searched for separators."""
FIRST_ROWS = 100
"""Rows of a Parquet or JSON-lines file that are searched for the field with most text."""
SURVEY = 1 << 25
"""Characters that are read to find the text in rows, and to estimate its size and documents."""
MANY_FILES = 20
"""From this number of text files on, each is taken as a document."""
FEWEST_SEPARATORS = 5
"""A text that occurs less often at the start of the file does not divide it."""
PERMUTED_FROM, HALVED_FROM = 20, 100
"""Fewest documents for a validation of randomly drawn ones, and for a test of half of those."""
SEED = 42
BPE_SIZES = {512: 1e6, 2048: 3e7, 8192: 1e9}
"""N of a proposed bpe-<N> -> most characters of text for it; larger text takes gpt2."""
_TITLE = re.compile(r"^ = [^=\n]+ = \r?$", re.MULTILINE)

Keys = dict[str, Any]


def new_corpus(name: str, source: str | Path, tokenizer: str | None = None) -> Corpus:
    """Write params/corpora/<name>.yaml for the text in a file or folder, and prepare it.

    What a document is, the separator, the split rules and the tokenizer are proposed from the
    text. The file explains each key and can be edited (docs/own-corpus.md). If an earlier
    call was killed before the corpus was complete, this one continues with the file it left.

    Args:
        name: Name of the corpus: small letters, digits and hyphens.
        source: Folder or file. Files or folders named train, validation and test are the splits;
            where no name says a split, all files are divided.
        tokenizer: `gpt2` or `bpe-<N>`; None: by the size of the text.

    Returns:
        The prepared corpus.

    Raises:
        UserError: The name is taken, or the text cannot be read; no corpus file is left.
    """
    path, place = _new_path(name), Path(source)
    keys = {
        "title": name,
        "about": f"Text from {printable(place.resolve().name)}.",
        "document": "row",
    }
    train_alone = _permutation(0.5) | {"test": "none"}  # rules to look at the text, not to keep
    text = open_source(CorpusSpec(name=name, **keys | train_alone), place)
    keys |= _document_rules(text.files["train"])
    text.spec = CorpusSpec(name=name, **keys | train_alone)
    documents, characters = _survey(text)
    present = {split for split, files in text.files.items() if files}
    keys |= _split_rules(present, documents)
    whole_documents = keys.get("validation") != "tail"
    tokenizers = [tokenizer] if tokenizer else _tokenizers(characters, whole_documents)
    content = _file_content(name, keys)
    with as_user_error(path, "cannot be written"):
        if path.exists() and path.read_bytes() != content.encode():
            raise _name_is_taken(name)
        write_text(path, content)
    print_line(f"{name}: wrote params/corpora/{name}.yaml (about {documents:,} documents)")
    try:
        return _prepare_first_that_fits(name, place, tokenizers)
    except BaseException:
        path.unlink(missing_ok=True)
        raise


def _new_path(name: str) -> Path:
    """Return the place of the corpus file. Raises UserError where the name cannot be used."""
    if not re.fullmatch(CORPUS_PATTERN, name):
        raise UserError(
            f"corpus name {name[:80]!r}: use small letters, digits and hyphens, e.g. my-text"
        )
    if any((data_dir() / name).glob("[!.]*")):  # beside the lock of a preparation that failed
        if name in corpus_names():
            raise _name_is_taken(name)
        raise UserError(f"{data_dir() / name}: exists already; choose another name, or delete it")
    return corpus_path(name)


def _name_is_taken(name: str) -> UserError:
    return UserError(
        f"params/corpora/{name}.yaml: exists already; choose another name, or edit it and run"
        f" `oelm data prepare {name} --source PATH --tokenizer T`"
    )


def _permutation(fraction: float) -> Keys:
    return {
        "validation": "permutation",
        "validation_fraction": fraction,
        "validation_seed": SEED,
    }


def _document_rules(files: list[str]) -> Keys:
    """Propose the keys that say what a document is, from the first file and the number of files."""
    first = Path(files[0])
    if not is_text(first.name):
        return {"text_field": _text_field(first)}
    with open_bytes(first) as file:
        head = file.read(HEAD).decode(errors="replace").replace("\r\n", "\n")
    if _TITLE.search(head):
        return {"document": "article"}
    if END_OF_TEXT in head:
        return {"text_separator": END_OF_TEXT}
    if len(files) < MANY_FILES:
        for separator in ("\n\n\n", "\n\n", "\n"):
            if head.strip().count(separator) >= FEWEST_SEPARATORS:
                return {"text_separator": separator}
    return {}


def _text_field(file: Path) -> str:
    """Return `text`, or the column or key with most text in the first rows."""
    characters: Counter[str] = Counter()
    for row in _first_rows(file):
        for key, value in row.items():
            if isinstance(value, str):
                characters[key] += len(value)
        if characters.total() >= SURVEY:
            break
    if not characters:
        raise UserError(f"{file}: no column or key holds text; convert it, or remove the file")
    return "text" if "text" in characters else characters.most_common(1)[0][0]


def _first_rows(file: Path) -> Iterator[dict[str, Any]]:
    """Yield at most FIRST_ROWS rows of a Parquet or JSON-lines file, as far as they can be read."""
    if file.suffix == ".parquet":
        import pyarrow
        import pyarrow.parquet

        try:
            with open(file, "rb") as raw:
                batches = pyarrow.parquet.ParquetFile(raw).iter_batches(batch_size=FIRST_ROWS)
                yield from next(batches, pyarrow.table({})).to_pylist()
        except (pyarrow.ArrowException, OSError, ValueError) as error:
            raise not_readable(file, error) from None
        return
    with open_bytes(file) as lines:
        for line in islice(iter(lambda: lines.readline(LINE_BYTES), b""), FIRST_ROWS):
            with contextlib.suppress(ValueError, RecursionError):  # reported when the file is read
                row = json.loads(line)
                yield row if isinstance(row, dict) else {}


def _survey(text: Source) -> tuple[int, int]:
    """Return the estimated number of documents and of characters of the train split."""
    documents = characters = 0
    blank = True
    for piece, ends in text.pieces("train"):
        documents, characters = documents + ends, characters + len(piece)
        blank = blank and not piece.strip()
        if characters >= SURVEY:
            break
    if blank:
        file = printable(text.files["train"][0])
        raise UserError(f"{file}: has no text; give a file with text in it")
    share = text.fraction if characters >= SURVEY else 1
    return max(1, round(documents / (share or 1))), round(characters / (share or 1))


def _split_rules(present: set[str], documents: int) -> Keys:
    """Propose the split rules, from the splits that the source has and the number of documents."""
    if "validation" in present:
        return {} if "test" in present else {"test": "halves"}
    if documents < PERMUTED_FROM:
        return {"validation": "tail", "validation_fraction": 0.1, "test": "none"}
    # At least 40 documents where there are enough of them, at least 5 % of all.
    rules = _permutation(round(max(0.05, min(0.2, 40 / documents)), 3))
    if "test" in present:
        return rules
    return rules | {"test": "halves" if documents >= HALVED_FROM else "none"}


def _tokenizers(characters: int, whole_documents: bool) -> list[str]:
    """Propose tokenizers by the size of the text; where it is too small for one, the next is tried.

    Args:
        whole_documents: False where a document is cut in two, which needs gpt2.
    """
    fitting = next((size for size, limit in BPE_SIZES.items() if characters <= limit), None)
    if fitting is None or not whole_documents:
        return ["gpt2"]
    smaller = [f"bpe-{size}" for size in BPE_SIZES if size <= fitting]
    return [*reversed(smaller), "bpe-300", "gpt2"]


def _prepare_first_that_fits(name: str, source: Path, tokenizers: list[str]) -> Corpus:
    """Prepare the corpus with the first of the tokenizers that its text is large enough for."""
    *others, last = tokenizers
    for tokenizer in others:
        try:
            return prepare(name, source, tokenizer)
        except TooLittleTextError as error:
            print_line(f"{name}: {error}")
    return prepare(name, source, last)


def _file_content(name: str, keys: Keys) -> str:
    """Return the corpus file: each key below a comment that says what it does."""
    lines = [f"# Proposed by `oelm data new {name}`; every key: {GUIDE}. To use other rules, edit"]
    command = f"oelm data prepare {name} --source PATH --tokenizer T"
    lines += [f"# them, delete data/{name} and run `{command}`."]
    for key, value in keys.items():
        lines += [f"# {CorpusSpec.model_fields[key].description}", dump_yaml({key: value}).strip()]
    return "\n".join(lines) + "\n"
