"""Files of each split in a local folder, laid out as on the hub."""

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from oelm_lib.data.readers import KINDS
from oelm_lib.data.spec import SAMPLE, CorpusSpec
from oelm_lib.errors import UserError
from oelm_lib.files import sha256_file

_SPLIT_OF = {
    "train": "train",
    "validation": "validation",
    "valid": "validation",
    "val": "validation",
    "test": "test",
}
_LABEL = "|".join(_SPLIT_OF)
_PART = re.compile(rf"({_LABEL})-(?P<number>[0-9]+)-of-(?P<count>[0-9]+)\b.*")


@dataclass(frozen=True)
class _File:
    """A file of a split.

    Attributes:
        path: Where it lies, as the user named the folder.
        split: train, validation or test; "" where no name says one.
        place: Folder and word that name the split, e.g. (source, "valid"); one place a split.
        kind: Ending of the file, one of KINDS.
    """

    path: Path
    split: str
    place: tuple[Path, str]
    kind: str


def find_splits(source: Path, spec: CorpusSpec) -> tuple[dict[str, list[str]], list[str]]:
    """Find the files of each split below a folder.

    A file belongs to a split by its name (train.jsonl, train-00000-of-00002.parquet) or by a
    folder above it (train/0000.txt), links followed, hidden files left out; where no name says a
    split, all files are train. The order is that of the names, numbers in them by value.

    Args:
        source: The folder; a sub-folder named as spec.hub_config is searched in its place.

    Returns:
        Split -> its files, also of splits that the spec does not read; lines for the user about
        files that are not read, or that have the same content.

    Raises:
        UserError: Text would be read twice or in two splits, a part or a link's target is missing,
            or a folder cannot be listed.
    """
    root = source / (spec.hub_config or "")
    root = root if root.is_dir() else source
    found: dict[str, list[_File]] = {split: [] for split in ("", *_SPLIT_OF.values())}
    ignored = []
    for path in _walk(root):
        if file := _classify(path, root):
            found[file.split].append(file)
        else:
            ignored.append(path)
    unnamed = found.pop("")
    if any(found[split] for split in spec.source_splits):
        ignored += [file.path for file in unnamed]
    else:
        found["train"] = unnamed
    for split in spec.source_splits:
        found[split].sort(key=lambda file: _natural(str(file.path)))
        _check_one_set(split, found[split], spec)
    notes = _check_apart([file for split in spec.source_splits for file in found[split]])
    if ignored:
        example = printable(min(ignored).relative_to(root))
        notes.append(f"{len(ignored):,} other files are not read, e.g. {example}")
    return {split: [str(file.path) for file in files] for split, files in found.items()}, notes


def printable(path: str | Path) -> str:
    """Return a path as text that every file can hold; bytes that are not UTF-8 as \\xNN."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")


def _walk(root: Path) -> Iterator[Path]:
    """Yield the files below a folder; links are followed, hidden names are left out."""

    def refuse(error: OSError) -> None:
        raise UserError(f"{error.filename}: cannot be listed ({error.strerror}); ask for access")

    seen = set()
    for folder, folders, names in os.walk(root, followlinks=True, onerror=refuse):
        real = os.path.realpath(folder)
        if real in seen:
            raise UserError(f"{folder}: a link leads to {real} a second time; remove one")
        seen.add(real)
        folders[:] = sorted(name for name in folders if not _hidden(name))
        for name in sorted(names):
            path = Path(folder, name)
            if _hidden(name):
                continue
            if path.is_symlink() and not path.exists():
                raise UserError(
                    f"{path}: its link leads to {os.readlink(path)}, which is not there;"
                    " copy the folder with its links' targets (cp -rL)"
                )
            yield path


def _hidden(name: str) -> bool:
    return name.startswith(".") or name == "__MACOSX"


def _classify(path: Path, root: Path) -> _File | None:
    """Return the file with its split; None where it is not text."""
    kind = next((kind for kind in KINDS if path.name.endswith(kind)), None)
    if kind is None or not path.is_file():
        return None
    stem = path.name.partition(".")[0]
    by_name = re.fullmatch(rf"({_LABEL})(-[0-9].*)?", stem)
    places = [(path.parent, by_name[1])] if by_name else []
    folder = path.parent
    while folder != root:
        if folder.name in _SPLIT_OF:
            places.append((folder.parent, folder.name))
        folder = folder.parent
    splits = sorted({_SPLIT_OF[label] for _, label in places})
    if len(splits) > 1:
        raise UserError(f"{path}: its name says {' and '.join(splits)}; rename it or its folder")
    if not places:
        return _File(path, "", (root, ""), kind)
    return _File(path, splits[0], places[-1], kind)


def _check_one_set(split: str, files: list[_File], spec: CorpusSpec) -> None:
    """Raise UserError where the files of a split are not one file or one set of parts."""
    for first, second in pairwise(files):
        if first.place != second.place or first.kind != second.kind:
            raise _read_twice(split, first.path, second.path)
    whole = [file.path for file in files if file.path.name.partition(".")[0] in _SPLIT_OF]
    if whole and len(files) > 1:
        raise _read_twice(split, whole[0], next(f.path for f in files if f.path != whole[0]))
    parts: dict[int, Path] = {}
    total = 0
    for file in files:
        if match := _PART.fullmatch(file.path.name):
            number, count = int(match["number"]), int(match["count"])
            if number >= count:
                raise UserError(
                    f"{file.path}: parts are numbered from 0, so there is no part {number} of"
                    f" {count}; remove or rename it"
                )
            if number in parts or (parts and count != total):
                raise _read_twice(split, next(iter(parts.values())), file.path)
            parts[number], total = file.path, count
    if len(parts) < total and not spec.sample:
        missing = next(number for number in range(total) if number not in parts)
        raise UserError(
            f"{files[0].path.parent}: part {missing} of the {total} of the {split} split is"
            f" missing; complete it, or name a part of the corpus {spec.name}{SAMPLE}"
        )


def _read_twice(split: str, first: Path, second: Path) -> UserError:
    return UserError(
        f"{first} and {second}: the {split} split would be read from both; keep one file, or the"
        " parts of one set"
    )


def _check_apart(files: list[_File]) -> list[str]:
    """Raise UserError where two names are one file; return a line for two files of one content."""
    notes = []
    by_size: dict[int, list[Path]] = {}
    for file in files:
        by_size.setdefault(file.path.stat().st_size, []).append(file.path)
    for size, paths in by_size.items():
        seen: dict[str, Path] = {}
        for path in paths if len(paths) > 1 and size else ():
            first = seen.setdefault(sha256_file(path), path)
            if first == path:
                continue
            if first.samefile(path):
                raise UserError(f"{first} and {path}: are one file by a link; remove one")
            notes.append(f"warning: {first} and {path} have the same content")
    return notes


def _natural(name: str) -> list[str | int]:
    """Sort key of a name: numbers by value, so that part-2 precedes part-10."""
    pieces = re.split(r"([0-9]+)", name)
    return [int(piece) if place % 2 else piece for place, piece in enumerate(pieces)]
