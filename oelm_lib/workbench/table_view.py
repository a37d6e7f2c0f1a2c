"""Widget of the table of all experiments and runs."""

from collections.abc import Callable
from html import escape
from typing import Any

import ipywidgets

from oelm_lib.view.widgets import Panel, dropdown
from oelm_lib.workbench.experiment import skipped_note
from oelm_lib.workbench.rows import NOT_RUN, Row
from oelm_lib.workbench.table import (
    CLICKED,
    GROUPS,
    SORTS,
    STATES,
    count_states,
    group_rows,
    select_rows,
    table_html,
)
from oelm_lib.workbench.widgets import WIDE, WRAP, text


class TableView(Panel):
    """The table with its search, order and groups.

    Args:
        words: First content of the search.
        on_click: Called with `run` of a row that was clicked.
    """

    def __init__(self, words: str, on_click: Callable[[str], None]):
        self._rows, self._marked, self._problem = [], "", ""
        self.words = text("search", words, "name, arm, corpus, tag, DEMO-0[12]*", "26em")
        self.state = dropdown("state", STATES)
        self.group = dropdown("group", GROUPS)
        self.sort = dropdown("sort by", SORTS)
        self.hidden = ipywidgets.Checkbox(
            description="with hidden runs", indent=False, layout={"width": "auto"}
        )
        self.count = ipywidgets.HTML()
        self.table = ipywidgets.HTML()
        self.clicked = ipywidgets.Text(layout={"display": "none"})
        self.clicked.add_class(CLICKED)
        choices = [self.words, self.state, self.group, self.sort, self.hidden]
        parts = [ipywidgets.HBox(choices, layout=WRAP), self.count, self.table, self.clicked]
        super().__init__(parts, layout=WIDE)
        self.add_class("wb-table")
        self.clicked.observe(lambda change: self._click(on_click), "value")
        for widget in choices:
            widget.observe(lambda change: self.show(self._rows), "value")

    def mark(self, name: str) -> None:
        """Mark the row of a run, or of an experiment without one, until another is marked."""
        self._marked = name
        self.show(self._rows)

    def report(self, problem: str) -> None:
        """Show a line above the rows until another is reported; "" removes it."""
        if problem != self._problem:
            self._problem = problem
            self.show(self._rows)

    def show(self, rows: list[Row]) -> None:
        """Show the rows that the choices ask for."""
        self._rows = rows
        chosen = select_rows(rows, self.words.value, self.state.value, self.hidden.value)
        groups = group_rows(chosen, self.group.value, self.sort.value)
        self.table.value = table_html(groups, self._marked)
        hidden = sum(bool(row.get("hidden")) for row in rows)
        lines: list[Any] = [count_states(chosen) + (f"; {hidden} hidden" if hidden else "")]
        lines += [row["reason"] for row in rows if row["state"] == NOT_RUN and row.get("reason")]
        lines += [line for line in (skipped_note(), self._problem) if line]
        self.count.value = "<br>".join(map(escape, lines))

    def _click(self, on_click: Callable[[str], None]) -> None:
        """Report the clicked row, and forget it so that the next click on it counts again."""
        if name := self.clicked.value:
            self.clicked.value = ""
            on_click(name)
