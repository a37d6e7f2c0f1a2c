"""Widget that starts the runs of an experiment, shows them live, and steers them."""

from collections.abc import Callable
from pathlib import Path

import ipywidgets

from oelm_lib.compare.plots import gap_curves
from oelm_lib.runs.frames import load_folders
from oelm_lib.view.budget import time_budget
from oelm_lib.view.curves import loss_curves
from oelm_lib.view.widgets import Panel, button, dropdown, put
from oelm_lib.workbench import actions, page_actions
from oelm_lib.workbench.launches import last_start, recent_launches
from oelm_lib.workbench.notes_view import NotesView
from oelm_lib.workbench.rows import LIVE, NOT_RUN, Row
from oelm_lib.workbench.runs import (
    LISTS,
    MOST_DRAWN,
    launches_html,
    limit_note,
    list_label,
    listed_runs,
    log_html,
    progress,
    progress_html,
    with_baselines,
    with_budgets,
)
from oelm_lib.workbench.table import table_html
from oelm_lib.workbench.widgets import WIDE, WRAP, Message, text

MOST_SELECTED = 6
"""Largest number of new runs that are selected automatically."""


class RunsView(Panel):
    """The runs of the chosen experiment.

    Args:
        outputs: Folder of the run folders.
        refresh: Reads the run folders again and shows them.
    """

    def __init__(self, outputs: Path, refresh: Callable[[], None]):
        self._outputs, self._refresh = outputs, refresh
        self._exp, self._rows, self._drawn, self._launches_html = "", [], [], ""
        self._shown: list[Row] | None = None
        self._listed: tuple[str, ...] = ()
        self._filling = False
        self._stopping: tuple[str, ...] = ()
        self.draws = False
        """Whether figures are drawn; not while the page opens, so that it opens fast."""
        self.seeds = text("seeds", "42", "42,43", "14em")
        self.at_once = ipywidgets.BoundedIntText(
            1,
            min=1,
            max=64,
            description="at once",
            continuous_update=True,
            layout={"width": "10em"},
        )
        self.start_button = button("Start", self._start_runs, "oelm run ID --seeds ..., detached")
        self.start_button.button_style = "primary"
        self.which = dropdown("list runs of", LISTS, "18em")
        self.list = ipywidgets.SelectMultiple(
            description="runs", rows=6, layout={"width": "44em", "max_width": "95%"}
        )
        self.start_message, self.message = Message(), Message()
        self.table, self.log_tail = ipywidgets.HTML(), ipywidgets.HTML()
        self.commands, self.loss, self.gap, self.budget = (ipywidgets.Output() for _ in range(4))
        self.notes = NotesView(self._selected, refresh)
        start_row = ipywidgets.HBox([self.seeds, self.at_once, self.start_button], layout=WRAP)
        figures = [self.loss, self.gap, self.budget]
        super().__init__(
            [
                start_row,
                self.start_message,
                self.which,
                self.list,
                ipywidgets.HBox(self._steering(), layout=WRAP),
                ipywidgets.HBox(self._pages(), layout=WRAP),
                self.message,  # below the buttons, so that these do not move
                self.commands,
                self.table,
                *figures,
                self.log_tail,
                self.notes,
            ],
            layout=WIDE,
        )
        self.which.observe(lambda change: self._list_runs(), "value")
        self.list.observe(lambda change: self._choose_runs(), "value")

    def choose(self, exp: str) -> None:
        """Show another experiment: its last start's seeds, no message of the one before."""
        self._exp = exp
        self.start_button.description = f"Start {exp}"
        self.start_message.value, self.message.value, self._stopping = "", "", ()
        if last := last_start(exp, self._outputs):
            seeds = [name.rpartition("/seed")[2] for name in last.runs]
            self.seeds.value, self.at_once.value = ",".join(seeds), last.at_once
        self._offer(())
        self._list_runs()

    def select(self, name: str) -> None:
        """Select one run of the list."""
        if name in self._listed:
            self.list.value = (name,)

    def show(self, rows: list[Row]) -> None:
        """Show the runs as they are now; figures are drawn again where a run made progress."""
        html = launches_html(recent_launches(self._outputs))
        if html != self._launches_html:
            self._launches_html = html
            data = {"text/html": html, "text/plain": ""}
            shown = {"output_type": "display_data", "data": data, "metadata": {}}
            self.commands.outputs = (shown,) if html else ()
        if rows is not self._shown or (self.draws and not self._drawn):
            self._rows = rows
            self._list_runs()
            self._report_stopped()
            self._show_runs()
            self._shown = rows

    def _steering(self) -> list[ipywidgets.Button]:
        """Return the buttons that act on the selected runs."""
        outputs, selected = self._outputs, self._selected
        steps: dict[str, tuple[Callable[[], str], str]] = {
            "Stop": (
                self._stop,
                "Save and stop, as oelm stop does",
            ),
            "Continue": (
                lambda: actions.continue_runs(selected(), outputs, self.at_once.value),
                "Go on from the checkpoint, as the same oelm run does",
            ),
            "Start afresh": (
                lambda: actions.restart_run(selected(), outputs),
                "Train again from step 0; the old folder is renamed and kept",
            ),
            "Remove": (
                lambda: actions.remove_runs(selected(), outputs),
                "Move to the trash: oelm rm",
            ),
            "Undo remove": (
                lambda: actions.undo_remove(outputs),
                "Bring back what was removed last: runs, or an experiment",
            ),
        }
        return [self._button(label, *step) for label, step in steps.items()]

    def _pages(self) -> list[ipywidgets.Button]:
        """Return the buttons that make pages of the selected runs."""
        outputs, selected = self._outputs, self._selected
        steps: dict[str, tuple[Callable[[], str], str]] = {
            "Compare": (
                lambda: page_actions.compare_runs(self._chosen_rows(), outputs),
                "oelm report ID BASELINE",
            ),
            "Explore": (
                lambda: page_actions.explore_runs(self._chosen_rows(), outputs),
                "oelm report explore --runs ...",
            ),
            "Page": (lambda: page_actions.run_page(selected(), outputs), "oelm report RUN"),
            "Export CSV": (
                lambda: page_actions.export_runs(selected(), outputs),
                "oelm export RUN --format csv",
            ),
        }
        return [self._button(label, *step) for label, step in steps.items()]

    def _button(self, label: str, action: Callable[[], str], tooltip: str) -> ipywidgets.Button:
        return button(label, lambda: self._act(action), tooltip)

    def _start_runs(self) -> None:
        seeds, at_once = self.seeds.value, self.at_once.value
        self.start_message.run(
            lambda: actions.start_runs(self._exp, seeds, self._outputs, at_once=at_once)
        )
        self._refresh()

    def _act(self, action: Callable[[], str]) -> None:
        """Do an action, show its line, and show the runs as they are then."""
        self._stopping = ()
        self.message.run(action)
        self._refresh()

    def _stop(self) -> str:
        states = {row["run"]: row["state"] for row in self._rows}
        line = actions.stop_runs(self._selected(), self._outputs)
        self._stopping = tuple(run for run in self.list.value if states.get(run) in LIVE)
        return line

    def _report_stopped(self) -> None:
        """Say that the runs which were asked to stop have ended."""
        states = {row["run"]: row["state"] for row in self._rows if row["run"] in self._stopping}
        if states and set(states.values()).isdisjoint(LIVE):
            self._stopping = ()
            self.message.say("; ".join(f"{run}: {state}" for run, state in states.items()))

    def _selected(self) -> list[Path]:
        """Return the folders of the runs selected in the list."""
        return [self._outputs / name for name in self.list.value]

    def _chosen_rows(self) -> list[Row]:
        """Return the rows of the selected runs and their baselines."""
        return with_baselines(self._rows, self.list.value)

    def _list_runs(self) -> None:
        """Offer the runs that exist now: what was selected stays so, and a new one is selected."""
        names = tuple(listed_runs(self._rows, self._exp, self.which.value))
        known, kept = self._listed, self.list.value
        if names == known:
            return
        new = [name for name in listed_runs(self._rows, self._exp) if name not in known]
        self._filling = True  # new options select nothing for a moment
        self._offer(names)
        self.list.value = [name for name in names if name in kept or name in new[-MOST_SELECTED:]]
        self._filling = False
        self._choose_runs()

    def _offer(self, names: tuple[str, ...]) -> None:
        self._listed = names
        self.list.options = [(list_label(name), name) for name in names]

    def _choose_runs(self) -> None:
        if self._filling:
            return
        self.list.tooltip = "\n".join(self.list.value)  # the whole names
        self._show_runs()
        self.notes.load()

    def _show_runs(self) -> None:
        """Show the table, the log and the figures of the selected runs and their baselines."""
        rows = self._chosen_rows()
        self.log_tail.value = log_html([row for row in rows if row["run"] in self.list.value])
        table = progress_html(rows) + table_html({"": rows}) + limit_note(self.list.value)
        self.table.value = table if rows else self._empty_text()
        drawn = with_baselines(self._rows, self.list.value[-MOST_DRAWN:])
        if not self.draws or progress(drawn) == self._drawn:
            return
        self._draw(drawn)
        self._drawn = progress(drawn)

    def _draw(self, drawn: list[Row]) -> None:
        """Draw the runs that have begun."""
        drawn = [row for row in drawn if (Path(row["path"]) / "config.yaml").is_file()]
        if not drawn:
            self.loss.outputs = self.gap.outputs = self.budget.outputs = ()
            return
        runs = load_folders([Path(row["path"]) for row in drawn])
        put(self.loss, loss_curves(runs, group="seed"))
        if any(row.get("compare_to") for row in drawn):
            put(self.gap, gap_curves(runs, group="seed"))
        else:  # baselines only
            self.gap.outputs = ()
        spent = with_budgets(runs, drawn)
        if spent.empty:
            self.budget.outputs = ()
        else:
            put(self.budget, time_budget(spent))

    def _empty_text(self) -> str:
        has_runs = any(row["id"] == self._exp and row["state"] != NOT_RUN for row in self._rows)
        if has_runs:
            return "<p>Select runs in the list to see their curves.</p>"
        return f"<p>{self._exp} has no run yet: choose its seeds and press Start.</p>"
