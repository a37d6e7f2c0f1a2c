"""Widget of the tags and the note of runs."""

from collections.abc import Callable
from html import escape
from pathlib import Path

import ipywidgets

from oelm_lib.errors import UserError
from oelm_lib.runs.names import run_name
from oelm_lib.runs.notes import Notes, read_notes, write_notes
from oelm_lib.view.widgets import button
from oelm_lib.workbench.actions import check_selected
from oelm_lib.workbench.widgets import WRAP, Message, text


class NotesView(ipywidgets.VBox):
    """Tags, a note and whether tables hide the run; saved in the folder of each selected run.

    The fields show the notes of the first selected run. Each run gets what the user changed in
    them, and keeps the rest of its own.

    Args:
        selected: Returns the folders of the selected runs.
        refresh: Reads the run folders again and shows them.
    """

    def __init__(self, selected: Callable[[], list[Path]], refresh: Callable[[], None]):
        self._selected, self._refresh = selected, refresh
        self._shown: Path | None = None
        self._loaded = Notes()
        self.heading = ipywidgets.HTML()
        self.tags = text("tags", "", "separated by spaces")
        self.hidden = ipywidgets.Checkbox(
            description="hide in the table", indent=False, layout={"width": "auto"}
        )
        self.note = ipywidgets.Textarea(
            description="note", rows=2, layout={"width": "44em", "max_width": "95%"}
        )
        self.save = button("Save notes", self._save, "Write notes.json")
        self.message = Message()
        above = [self.tags, self.hidden, self.save, self.message]
        super().__init__([self.heading, ipywidgets.HBox(above, layout=WRAP), self.note])

    def load(self) -> None:
        """Show the notes of the first selected run; while it stays selected, keep unsaved input."""
        paths = self._selected()
        first = paths[0] if paths else None
        if self._shown not in paths and first != self._shown:
            self._shown, self.message.value = first, ""
            try:
                self._fill(read_notes(first) if first else Notes())
            except UserError:
                self._fill(Notes())
        self.heading.value = self._heading(len(paths))

    def _heading(self, count: int) -> str:
        if self._shown is None:
            return ""
        note = f"; what you change is saved in all {count} selected runs" if count > 1 else ""
        return f"Notes of {escape(run_name(self._shown))}{note}"

    def _fill(self, notes: Notes) -> None:
        self._loaded = notes
        self.tags.value = " ".join(notes.tags)
        self.note.value, self.hidden.value = notes.note, notes.hidden

    def _save(self) -> None:
        self.message.run(self._write)
        self._refresh()

    def _write(self) -> str:
        paths = self._selected()
        check_selected(paths)
        changed = Notes(tuple(self.tags.value.split()), self.note.value, self.hidden.value)
        notes = {path: _merged(read_notes(path), self._loaded, changed) for path in paths}
        for path in paths:
            write_notes(path, notes[path])
        self._loaded = changed
        return f"Notes saved for {', '.join(map(run_name, paths))}"


def _merged(own: Notes, shown: Notes, changed: Notes) -> Notes:
    """Return the notes of a run with what the user changed in those that were shown."""
    kept = [tag for tag in own.tags if tag in changed.tags or tag not in shown.tags]
    added = [tag for tag in changed.tags if tag not in shown.tags]
    return Notes(
        tuple(dict.fromkeys([*kept, *added])),
        own.note if changed.note == shown.note else changed.note,
        own.hidden if changed.hidden == shown.hidden else changed.hidden,
    )
