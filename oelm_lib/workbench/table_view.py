"""Widget of the table of all experiments and runs."""

from html import escape
from typing import Any

import ipywidgets

from oelm_lib.workbench.experiment import skipped_note
from oelm_lib.workbench.rows import Row
from oelm_lib.workbench.table import (
    GROUPS,
    SORTS,
    STATES,
    count_states,
    group_rows,
    select_rows,
    table_html,
)
from oelm_lib.workbench.widgets import WRAP, dropdown, text


class TableView(ipywidgets.VBox):
    """The table with its search, order and groups.

    Args:
        words: First content of the search.
    """

    def __init__(self, words: str = ""):
        self._rows: list[Row] = []
        self.words = text("search", words, "name, arm, corpus, tag, DEMO-0[12]*", "26em")
        self.state = dropdown("state", STATES)
        self.group = dropdown("group", GROUPS)
        self.sort = dropdown("sort by", SORTS)
        self.hidden = ipywidgets.Checkbox(description="with hidden runs", indent=False)
        self.count = ipywidgets.HTML()
        self.table = ipywidgets.HTML()
        choices = [self.words, self.state, self.group, self.sort, self.hidden]
        super().__init__([ipywidgets.HBox(choices, layout=WRAP), self.count, self.table])
        for widget in choices:
            widget.observe(lambda change: self.show(self._rows), "value")

    def show(self, rows: list[Row], problem: str = "") -> None:
        """Show the rows that the choices ask for; `problem` is a line above them."""
        self._rows = rows
        chosen = select_rows(rows, self.words.value, self.state.value, self.hidden.value)
        self.table.value = table_html(group_rows(chosen, self.group.value, self.sort.value))
        hidden = sum(bool(row.get("hidden")) for row in rows)
        lines: list[Any] = [count_states(chosen) + (f"; {hidden} hidden" if hidden else "")]
        lines += [line for line in (skipped_note(), problem) if line]
        self.count.value = "<br>".join(map(escape, lines))
