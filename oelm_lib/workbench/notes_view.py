"""Widget of the tags and the note of runs."""

from collections.abc import Callable
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

    Args:
        selected: Returns the folders of the selected runs.
        refresh: Reads the run folders again and shows them.
    """

    def __init__(self, selected: Callable[[], list[Path]], refresh: Callable[[], None]):
        self._selected, self._refresh = selected, refresh
        self._shown: Path | None = None
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
        super().__init__([ipywidgets.HBox(above, layout=WRAP), self.note])

    def load(self) -> None:
        """Show the notes of the first selected run; while it is selected, what one types stays."""
        paths = self._selected()
        first = paths[0] if paths else None
        if self._shown in paths or first == self._shown:
            return
        self._shown, self.message.value = first, ""
        try:
            notes = read_notes(first) if first else Notes()
        except UserError:
            notes = Notes()
        self.tags.value = " ".join(notes.tags)
        self.note.value, self.hidden.value = notes.note, notes.hidden

    def _save(self) -> None:
        self.message.run(self._write)
        self._refresh()

    def _write(self) -> str:
        paths = self._selected()
        check_selected(paths)
        notes = Notes(tuple(self.tags.value.split()), self.note.value, self.hidden.value)
        for path in paths:
            write_notes(path, notes)
        return f"Notes saved for {', '.join(map(run_name, paths))}"
