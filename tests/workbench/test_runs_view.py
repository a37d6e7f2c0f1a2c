"""The widget of the runs of an experiment: its list, buttons, notes and figures."""

import ipywidgets

from oelm_lib.files import read_json, write_json
from oelm_lib.runs.process import this_process
from oelm_lib.workbench import Workbench, runs_view
from oelm_lib.workbench.runs import MOST_DRAWN, with_baselines
from oelm_lib.workbench.runs_view import MOST_SELECTED
from tests import runs_factory
from tests.workbench.board import click, curve_names, open_board


def test_curves_are_those_of_the_selected_runs_and_their_baselines(outputs):
    for seed in (1, 2):
        runs_factory.make_run(outputs, "DEMO-01", seed)
        runs_factory.make_run(outputs, "DEMO-02", seed, state="stopped", done=0.5)
    board = open_board(outputs)
    board.experiment.choice.value = "DEMO-02"
    assert curve_names(board.runs.loss) == {
        f"{arm} · seed {seed}" for arm in ("baseline", "OELM-Freeze") for seed in (1, 2)
    }
    assert curve_names(board.runs.gap) == {"OELM-Freeze · seed 1", "OELM-Freeze · seed 2"}
    board.runs.list.value = ("DEMO-02_oelm_freeze/seed2",)
    assert curve_names(board.runs.loss) == {"baseline · seed 2", "OELM-Freeze · seed 2"}
    before = board.runs.loss.outputs
    board.refresh()
    assert board.runs.loss.outputs is before  # no new rows: nothing is drawn again
    board.experiment.choice.value = "DEMO-01"
    assert curve_names(board.runs.loss) == {"baseline · seed 1", "baseline · seed 2"}
    assert board.runs.gap.outputs == ()  # a baseline has no gap


def test_only_so_many_runs_are_selected_and_drawn_as_can_be_told_apart(outputs):
    for seed in range(MOST_DRAWN + 2):
        runs_factory.make_run(outputs, "DEMO-01", seed, done=0.1, state="stopped")
    board = open_board(outputs)
    board.experiment.choice.value = "DEMO-01"
    assert len(board.runs.list.value) == MOST_SELECTED
    board.runs.list.value = [name for _, name in board.runs.list.options]
    assert len(curve_names(board.runs.loss)) == MOST_DRAWN
    assert board.runs.table.value.count("<tr data-run=") == MOST_DRAWN + 2
    line = f"The figures show the last {MOST_DRAWN} of the {MOST_DRAWN + 2} selected runs."
    assert line in board.runs.table.value


def test_pages_are_made_of_every_selected_run_however_many_there_are(outputs, sleepers):
    runs_factory.make_run(outputs, "DEMO-02", 1)
    for seed in range(MOST_DRAWN):
        runs_factory.make_run(outputs, "DEMO-03", seed)
    board = open_board(outputs)
    board.runs.which.value = "all"
    board.runs.list.value = [name for _, name in board.runs.list.options]
    click(board, "Compare")
    assert "oelm report &#x27;DEMO-02 DEMO-03&#x27;" in board.runs.message.value
    click(board, "Explore")
    assert "DEMO-02_oelm_freeze/seed1 DEMO-03_oelm_random" in board.runs.message.value


def test_a_rehearsal_is_drawn_with_the_baselines_run_of_the_same_overrides(outputs):
    overrides = {"train.max_steps": 130}
    runs_factory.make_run(outputs, "DEMO-01", 1)
    runs_factory.make_run(outputs, "DEMO-01", 1, overrides=overrides)
    runs_factory.make_run(outputs, "DEMO-02", 1, overrides=overrides)
    rows = Workbench(str(outputs)).runs._rows
    chosen = tuple(row["run"] for row in rows if row["id"] == "DEMO-02")
    drawn = [row["run"] for row in with_baselines(rows, chosen)]
    assert len(drawn) == 2 and all("+" in name for name in drawn)


def test_removed_runs_leave_the_page_and_come_back_in_a_new_kernel(outputs):
    runs_factory.make_run(outputs, "DEMO-02", 1)
    board = open_board(outputs)
    click(board, "Remove")
    assert "Removed: DEMO-02_oelm_freeze/seed1" in board.runs.message.value
    assert board.runs.list.options == () and "no run yet" in board.runs.table.value
    again = open_board(outputs)
    click(again, "Undo remove")
    assert again.runs.list.options == (("DEMO-02/1 oelm_freeze", "DEMO-02_oelm_freeze/seed1"),)


def test_a_run_that_trains_is_not_removed_and_nothing_is_lost(outputs):
    runs_factory.make_run(outputs, "DEMO-02", 1, state="running", done=0.5)
    board = open_board(outputs)
    click(board, "Remove")
    assert "press Stop first" in board.runs.message.value
    assert board.runs.list.value == ("DEMO-02_oelm_freeze/seed1",)


def test_curves_that_could_not_be_drawn_are_drawn_when_they_can_be(outputs, monkeypatch):
    runs_factory.make_run(outputs, "DEMO-02", 1)
    board = Workbench(str(outputs))
    with monkeypatch.context() as patch:
        patch.setattr(runs_view, "loss_curves", lambda runs, group: 1 / 0)
        for _ in range(2):
            board._due = 0.0
            board._look()
            assert "division by zero" in board.table.count.value and not board.runs.loss.outputs
    board._due = 0.0
    board._look()
    assert "division by zero" not in board.table.count.value
    assert curve_names(board.runs.loss) == {"OELM-Freeze · seed 1"}


def test_the_list_offers_short_names_and_tells_the_whole_ones_of_the_selected_runs(outputs):
    run = runs_factory.make_run(outputs, "DEMO-02", 1)
    board = open_board(outputs)
    name = f"{run.parent.name}/seed1"
    ((label, value),) = board.runs.list.options
    assert value == name and label == "DEMO-02/1 oelm_freeze"
    assert board.runs.list.tooltip == name and board.runs.list.value == (name,)


def test_a_run_that_waits_is_left_out_of_the_figures(outputs):
    runs_factory.make_run(outputs, "DEMO-02", 1, state="stopped", done=0.5)
    waiting = outputs / "DEMO-02_oelm_freeze" / "seed2"
    waiting.mkdir()
    status = {"state": "queued", "step": 0, "max_steps": 650, "heartbeat": 4e9, "started": None}
    write_json(waiting / "status.json", status | this_process())
    board = open_board(outputs)
    assert len(board.runs.list.value) == 2
    assert curve_names(board.runs.loss) == {"OELM-Freeze · seed 1"}
    assert "no config.yaml" not in str(board.runs.loss.outputs)
    board.runs.list.value = ("DEMO-02_oelm_freeze/seed2",)
    assert board.runs.loss.outputs == ()


def test_nothing_above_the_buttons_changes_its_height(outputs):
    runs = open_board(outputs).runs
    places = {part: place for place, part in enumerate(runs.children)}
    last_buttons = max(place for part, place in places.items() if type(part) is ipywidgets.HBox)
    assert places[runs.message] > last_buttons and places[runs.commands] > last_buttons


def test_what_start_did_stands_right_below_it(outputs):
    board = open_board(outputs)
    board.runs.seeds.value = "forty"
    board.runs.start_button.click()
    assert "whole numbers" in board.runs.start_message.value and board.runs.message.value == ""
    start_row, below = board.runs.children[:2]
    assert board.runs.start_button in start_row.children and below is board.runs.start_message


def test_a_run_that_was_asked_to_stop_is_said_to_have_stopped(outputs):
    runs_factory.make_run(outputs, "DEMO-02", 2)
    path = runs_factory.make_run(outputs, "DEMO-02", 1, state="running", done=0.5)
    board = open_board(outputs)
    assert len(board.runs.list.value) == 2  # the done one, too, which is not asked
    click(board, "Stop")
    assert "asked to save and stop" in board.runs.message.value
    (path / "lock.json").unlink()
    write_json(path / "status.json", read_json(path / "status.json") | {"state": "stopped"})
    board.refresh()
    assert ">DEMO-02_oelm_freeze/seed1: stopped<" in board.runs.message.value


def test_pages_of_no_run_are_refused_as_by_the_other_buttons(outputs):
    board = open_board(outputs)
    for label in ("Compare", "Explore", "Page", "Start afresh", "Continue"):
        click(board, label)
        assert "no run is selected; select one" in board.runs.message.value


def test_a_half_typed_note_stays_when_runs_appear(outputs):
    runs_factory.make_run(outputs, "DEMO-02", 5)
    board = open_board(outputs)
    board.runs.notes.note.value = "half a sen"
    for seed in (4, 6):  # before the selected run in the list, and after it
        runs_factory.make_run(outputs, "DEMO-02", seed)
        board.refresh()
        assert f"DEMO-02_oelm_freeze/seed{seed}" in board.runs.list.value
        assert board.runs.notes.note.value == "half a sen"
    board.runs.select("DEMO-02_oelm_freeze/seed4")
    assert board.runs.notes.note.value == ""


def test_an_experiment_without_runs_shows_none_of_the_one_before(outputs):
    runs_factory.make_run(outputs, "DEMO-02", 1)
    board = open_board(outputs)
    board.runs.notes.note.value = "of DEMO-02"
    board.experiment.choice.value = "DEMO-04"
    assert "DEMO-04 has no run yet" in board.runs.table.value
    assert board.runs.notes.note.value == "" and board.runs.loss.outputs == ()


def test_seeds_and_at_once_are_those_of_the_last_start_in_a_new_kernel(outputs):
    record = {"command": "oelm run DEMO-03 --seeds 7,8", "at_once": 2, "pid": 0}
    runs = ["DEMO-03_oelm_random/seed7", "DEMO-03_oelm_random/seed8"]
    (outputs / "logs").mkdir()
    write_json(outputs / "logs" / "20260101-000000-000000_run.json", record | {"runs": runs})
    board = open_board(outputs)
    board.experiment.choice.value = "DEMO-03"
    assert (board.runs.seeds.value, board.runs.at_once.value) == ("7,8", 2)
