"""notes.json: tags and a note that a person keeps with a run, and whether tables hide it."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from oelm_lib.errors import UserError
from oelm_lib.files import as_user_error, read_json, write_json
from oelm_lib.runs.reading import record_file

FILE = "notes.json"
LONGEST = 10_000
"""Most characters of a note."""


@dataclass(frozen=True)
class Notes:
    """Content of notes.json; none of it changes a result.

    Attributes:
        tags: Words by which runs are found.
        note: Free text.
        hidden: Whether tables leave the run out unless asked.
    """

    tags: tuple[str, ...] = ()
    note: str = ""
    hidden: bool = False


def read_notes(run: Path) -> Notes:
    """Return the notes of a run folder; empty ones where there is no file.

    Raises:
        UserError: The file is broken.
    """
    path = record_file(run, FILE)
    plain: dict[str, Any] = read_json(path) or {}
    tags, note, hidden = plain.get("tags", []), plain.get("note", ""), plain.get("hidden", False)
    is_valid = isinstance(tags, list) and all(isinstance(tag, str) for tag in tags)
    if not (is_valid and isinstance(note, str) and isinstance(hidden, bool)):
        raise UserError(f"{path}: tags, note or hidden is of a wrong type; correct or delete it")
    return Notes(tuple(tags), note, hidden)


def write_notes(run: Path, notes: Notes) -> None:
    """Write the notes of a run folder.

    Raises:
        UserError: The folder is gone or cannot be written, or the note is too long.
    """
    if len(notes.note) > LONGEST:
        raise UserError(f"{run}: a note has at most {LONGEST:,} characters; keep longer text apart")
    with as_user_error(run, "the notes cannot be written"):
        write_json(record_file(run, FILE), asdict(notes))
