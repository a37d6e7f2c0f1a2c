"""Widget of the form that makes a new experiment from another."""

from collections.abc import Callable
from html import escape
from pathlib import Path

import ipywidgets

from oelm_lib.config import SECTIONS, load_config, save_experiment
from oelm_lib.errors import UserError
from oelm_lib.view.tones import toned
from oelm_lib.view.widgets import Panel, button
from oelm_lib.workbench.form import (
    MAIN_KEYS,
    FormCheck,
    FormField,
    base_values,
    check_form,
    check_html,
    form_fields,
    next_id,
)
from oelm_lib.workbench.style import STYLE
from oelm_lib.workbench.widgets import WIDE, WRAP, Message

HELP = {
    "id": "File name without .yaml: capitals, a hyphen, 2 to 4 digits.",
    "title": "empty: the title of the original and what is changed",
    "question": "empty: what the changes do",
    "compare_to": "Its baseline. Empty: the original's baseline, or the original if that is a"
    " baseline. none: the new experiment is a baseline.",
}
LONG = ("title", "question")
"""Keys of sentences: their fields take the whole width and hold the help."""
NAME_WIDTH = "13em"


class FormRow(ipywidgets.HBox):
    """A field with its help text; if its value is impossible, the reason replaces the help."""

    def __init__(self, key: str, help_text: str, options: tuple[str, ...] = ()):
        is_long = key in LONG
        self._help = "" if is_long else help_text
        layout = {"flex": f"0 1 {'60em' if is_long else '27em'}"}
        style = {"description_width": NAME_WIDTH}
        of_field = {"description": key, "style": style, "layout": layout}
        if options:
            self.field = ipywidgets.Dropdown(options=options, **of_field)
        else:
            self.field = ipywidgets.Text(placeholder=help_text if is_long else "", **of_field)
        self.remark = ipywidgets.HTML(layout={"flex": "0 1 auto" if is_long else "1 1 20em"})
        super().__init__([self.field, self.remark], layout=WRAP)

    def mark(self, base: str, reason: str = "") -> None:
        """Show the reason, or the help; a value that differs from the original says so."""
        changed = base and self.field.value.strip() != base
        was = f"{toned(f'was {base}', 'unsure', 'b')}. " if changed else ""
        if reason:
            line = toned(reason, "bad", "b")
        else:
            line = f"<span style='opacity:.8'>{escape(self._help)}</span>"
        self.remark.value = f"<div style='line-height:1.3'>{was}{line}</div>"


class FormView(Panel):
    """The form: the keys that matter first, the others folded, the differences below.

    Args:
        on_saved: Called with the id of an experiment that was saved.
    """

    def __init__(self, on_saved: Callable[[str], None]):
        self._base, self._known, self._on_saved = "", {}, on_saved
        self._filling = True
        self._saved: tuple[Path, list[str]] = Path(), []
        self.check = FormCheck()
        self.words = {key: FormRow(key, text) for key, text in HELP.items()}
        self.fields = {field.key: _row(field) for field in form_fields()}
        folded = {
            section: [
                row
                for key, row in self.fields.items()
                if key.startswith(f"{section}.") and key not in MAIN_KEYS
            ]
            for section in SECTIONS
        }
        folds = ipywidgets.Accordion([ipywidgets.VBox(rows) for rows in folded.values()])
        folds.titles = [f"{section}: {len(rows)} more" for section, rows in folded.items()]
        self.summary, self.message = ipywidgets.HTML(), Message()
        self.save = button("Save experiment", self._save, "Write params/<ID>.yaml")
        self.save.button_style = "primary"
        self.reset = button("Reset", self._reset, "Forget the changes")
        self.heading = ipywidgets.HTML()
        first = [self.fields[key] for key in MAIN_KEYS]
        buttons = ipywidgets.HBox([self.save, self.reset])
        super().__init__(
            [
                self.heading,
                *self.words.values(),
                *first,
                folds,
                self.summary,
                buttons,
                self.message,
            ],
            layout=WIDE,
        )
        for row in (*self.words.values(), *self.fields.values()):
            row.field.observe(lambda change: self._check(), "value")

    def start_from(self, base: str) -> None:
        """Fill the form with the values of an experiment."""
        try:
            known, compare_to = base_values(base), load_config(base).compare_to or base
        except UserError as error:
            self._base, self.save.disabled, self.summary.value = "", True, ""
            self.heading.value = f"<b>No new experiment from {escape(base)}: its file is broken</b>"
            self.message.say(str(error), "bad")
            return
        self._filling = True
        self.message.value = ""
        try:
            self._base, self._known = base, known
            self.heading.value = f"{STYLE}<b>New experiment from {escape(base)}</b>"
            values = {"id": next_id(base), "title": "", "question": "", "compare_to": compare_to}
            for key, row in self.words.items():
                row.field.value = values[key]
            for key, row in self.fields.items():
                _offer(row.field, known[key])
        finally:
            self._filling = False
        self._check()

    def _reset(self) -> None:
        if self._base:
            self.start_from(self._base)

    def _check(self) -> None:
        """Check the form, and show the reasons beside the fields and the differences below."""
        if self._filling or not self._base:
            return
        words = {key: row.field.value for key, row in self.words.items()}
        values = {key: row.field.value for key, row in self.fields.items()}
        try:
            self.check = check_form(self._base, values, words)
        except UserError as error:
            self.check = FormCheck({"": str(error)})
        for key, row in self.words.items():
            row.mark("", self.check.reasons.get(key, ""))
        for key, row in self.fields.items():
            row.mark(self._known[key], self.check.reasons.get(key, ""))
        self.summary.value = check_html(self.check)
        self.save.disabled = not self.check.text

    def _save(self) -> None:
        path, contents = self._saved
        if contents == self._contents() and path.exists():  # a second click
            line = f"Saved as params/{path.name}. Change something to make another from it."
            self.message.say(line, "unsure")
            return
        self._check()  # files may have changed since the last key
        if not self.check.text:
            return
        self.message.run(self._write)

    def _write(self) -> str:
        """Save the experiment and choose it; returns a line for the user."""
        new_id = self.words["id"].field.value.strip()
        path = save_experiment(new_id, self.check.text)
        self._on_saved(new_id)
        self._saved = path, self._contents()
        return (
            f"Saved as params/{path.name}. It is chosen now: start its runs below. Delete"
            " experiment, above, undoes this."
        )

    def _contents(self) -> list[str]:
        """Return the texts of all fields."""
        return [row.field.value for row in (*self.words.values(), *self.fields.values())]


def _row(field: FormField) -> FormRow:
    note = "" if field.options else f" ({field.allowed})"
    return FormRow(field.key, f"{field.help}{note}", field.options)


def _offer(field: ipywidgets.Widget, value: str) -> None:
    """Put a value into a field; a choice that lacks it gets it."""
    if isinstance(field, ipywidgets.Dropdown) and value not in field.options:
        field.options = (*field.options, value)
    field.value = value
