"""The widgets without a browser: they show what the files hold, also to a new kernel."""

import re
import subprocess

import pytest

from oelm_lib.errors import UserError
from oelm_lib.runs.notes import Notes, read_notes, write_notes
from oelm_lib.workbench import actions
from oelm_lib.workbench.launches import Launch
from tests import runs_factory
from tests.workbench.board import click, open_board


def test_the_workbench_opens_before_any_run_does(outputs):
    board = open_board(outputs)
    assert board.table.count.value.startswith("0 runs; ")
    assert board.experiment.choice.value == "DEMO-02"
    assert "cost quality at toy size" in board.experiment.facts.value
    assert "DEMO-02 has no run yet" in board.runs.table.value
    runs_factory.make_run(outputs, "DEMO-02", state="running", done=0.4)
    board.refresh()
    assert board.table.count.value.startswith("1 run: 1 running")
    assert board.runs.list.value == ("DEMO-02_oelm_freeze/seed42",)
    line = r"DEMO-02/42 · running · ETA .+ · step 260/650 · loss .+ · 51,200 tokens/s"
    assert re.search(line, board.runs.table.value)


def test_search_group_and_hidden_runs(outputs):
    runs_factory.make_demo(outputs, seeds=(1,))
    board = open_board(outputs)
    board.table.words.value = "DEMO-0[12]*"
    assert board.table.count.value == "2 runs: 2 done"
    board.table.group.value = "arm"
    assert "baseline (1)" in board.table.table.value
    board.table.words.value = ""
    board.experiment.choice.value = "DEMO-02"
    board.runs.notes.hidden.value, board.runs.notes.tags.value = True, "odd paper"
    board.runs.notes.save.click()
    assert "Notes saved for DEMO-02" in board.runs.notes.message.value
    assert board.runs.message.value == ""  # far above the button
    assert read_notes(outputs / "DEMO-02_oelm_freeze" / "seed1") == Notes(
        ("odd", "paper"), "", True
    )
    assert "3 runs: " in board.table.count.value and "1 hidden" in board.table.count.value
    again = open_board(outputs)
    again.table.hidden.value = True
    assert "odd paper" in again.table.table.value
    again.experiment.choice.value = "DEMO-02"
    assert again.runs.notes.tags.value == "odd paper"


def test_notes_of_several_runs_change_only_where_the_user_changed_them(outputs):
    """The notes of the first run used to replace those of the others."""
    runs_factory.make_demo(outputs, seeds=(1, 2))
    first, other = (outputs / "DEMO-02_oelm_freeze" / f"seed{seed}" for seed in (1, 2))
    write_notes(first, Notes(("paper", "odd"), "of the first"))
    write_notes(other, Notes(("odd", "slow"), "of the other", True))
    board = open_board(outputs)
    board.experiment.choice.value = "DEMO-02"
    notes = board.runs.notes
    assert len(board.runs.list.value) == 2
    assert "DEMO-02_oelm_freeze/seed1" in notes.heading.value
    assert "all 2 selected runs" in notes.heading.value
    notes.tags.value = "paper new"
    notes.save.click()
    assert read_notes(first) == Notes(("paper", "new"), "of the first")
    assert read_notes(other) == Notes(("slow", "new"), "of the other", True)
    notes.note.value = "of both"
    notes.save.click()
    assert read_notes(other) == Notes(("slow", "new"), "of both", True)
    (other / "notes.json").write_text("{")
    notes.hidden.value = True
    notes.save.click()
    assert "notes.json" in notes.message.value and not read_notes(first).hidden
    board.runs.select("DEMO-02_oelm_freeze/seed1")
    assert "selected runs" not in notes.heading.value
    notes.save.click()
    assert read_notes(first) == Notes(("paper", "new"), "of both", True)


def test_a_click_on_a_row_chooses_its_experiment_and_selects_its_run_alone(outputs):
    runs_factory.make_demo(outputs, seeds=(1, 2))
    board = open_board(outputs)
    assert "data-run='DEMO-04_frozen_gaussian/seed1'" in board.table.table.value
    for _ in range(2):  # a second click counts too
        board.experiment.choice.value = "DEMO-02"
        board.table.clicked.value = "DEMO-04_frozen_gaussian/seed1"
        assert board.experiment.choice.value == "DEMO-04"
        assert board.runs.list.value == ("DEMO-04_frozen_gaussian/seed1",)
    board.table.clicked.value = "GPT-01"  # an experiment without a run
    assert board.experiment.choice.value == "GPT-01" and board.runs.list.value == ()


def test_ones_own_experiment_can_be_deleted_and_brought_back(outputs, params):
    for command in (["init", "--quiet"], ["add", "params"]):
        subprocess.run(["git", "-C", params.parent, *command], check=True)
    board = open_board(outputs)
    board.experiment.delete.click()
    assert "DEMO-02.yaml: git tracks it" in board.experiment.message.value
    board.form.save.click()
    assert board.experiment.choice.value == "DEMO-05" and board.experiment.message.value == ""
    board.experiment.delete.click()
    assert not (params / "DEMO-05.yaml").exists() and board.experiment.choice.value == "DEMO-02"
    assert "Deleted: params/DEMO-05.yaml" in board.experiment.message.value
    click(board, "Undo remove")
    assert "Back again: params/DEMO-05.yaml" in board.runs.message.value
    assert "DEMO-05" in dict(board.experiment.choice.options).values()


def test_an_experiment_whose_runs_a_command_holds_is_not_deleted(outputs, params, monkeypatch):
    launch = Launch("oelm run DEMO-04", outputs / "x.log", True, ("DEMO-04_x/seed1",))
    monkeypatch.setattr(actions, "live_launches", lambda outputs: [launch])
    with pytest.raises(UserError, match="DEMO-04: a command holds runs of it; press Stop"):
        actions.delete_experiment("DEMO-04", outputs)


def test_duplicates_that_jupyterlab_made_are_named_once(outputs, params):
    (params / "DEMO-02-Copy1.yaml").write_text((params / "DEMO-02.yaml").read_text())
    board = open_board(outputs)
    assert board.table.count.value.count("DEMO-02-Copy1.yaml") == 1


def test_an_experiment_with_an_undeclared_change_or_a_broken_file_is_shown_as_such(outputs, params):
    path = params / "DEMO-02.yaml"
    path.write_text(path.read_text().replace("dropout: 0.0", "dropout: 0.1"))
    (params / "DEMO-03.yaml").write_text("id: [")
    board = open_board(outputs)
    board.experiment.choice.value = "DEMO-02"
    board.experiment.choice.value = "DEMO-04"
    assert "not declared" not in board.experiment.facts.value
    board.experiment.choice.value = "DEMO-02"
    assert "not declared" in board.experiment.facts.value
    assert "changes is not what differs from DEMO-01" in board.experiment.facts.value
    board.experiment.choice.value = "DEMO-03"
    assert "not valid YAML" in board.experiment.facts.value
    assert "not valid YAML" in board.form.message.value
    assert "not valid YAML" in board.table.count.value
    assert "No new experiment from DEMO-03" in board.form.heading.value
    assert board.form.save.disabled
    board.form.fields["model.num_heads"].field.value = "2"
    assert board.form.save.disabled
    board.experiment.choice.value = "DEMO-04"
    assert "New experiment from DEMO-04" in board.form.heading.value
    assert not board.form.save.disabled


def test_a_look_that_fails_says_so_and_the_next_one_works(outputs, monkeypatch):
    board = open_board(outputs)
    with monkeypatch.context() as patch:
        patch.setattr(board._reader, "read", lambda: 1 / 0)
        board._look()
    assert "division by zero" in board.table.count.value
    board.table.sort.value = "run"
    assert "division by zero" in board.table.count.value
    board._due = 0.0
    board._look()
    assert "division by zero" not in board.table.count.value
    runs_factory.make_run(outputs, "DEMO-02", 1)
    board._due = 0.0
    board._look()
    assert board.table.count.value.startswith("1 run: 1 done")


def test_the_chosen_experiment_follows_its_file_and_that_of_its_baseline(outputs, params):
    runs_factory.make_run(outputs, "DEMO-02", 1)  # its row comes from its record
    board = open_board(outputs)
    for exp, old, new, shown in (
        ("DEMO-02", "dropout: 0.0", "dropout: 0.1", "not declared"),
        ("DEMO-01", "dropout: 0.0", "dropout: 0.1", "cost quality at toy size"),
        ("DEMO-02", "id: DEMO-02", "id: [", "not valid YAML"),
    ):
        before = board.experiment.facts.value
        path = params / f"{exp}.yaml"
        path.write_text(path.read_text().replace(old, new))
        board.refresh()
        assert shown in board.experiment.facts.value != before
    assert "not declared" not in board.experiment.facts.value


def test_a_message_does_not_stay_under_another_experiment(outputs, params):
    board = open_board(outputs)
    click(board, "Undo remove")
    assert "trash is empty" in board.runs.message.value
    board.form.save.click()
    board.form.message.say("Saved")
    board.experiment.choice.value = "DEMO-04"
    assert board.runs.message.value == board.form.message.value == ""


def test_a_message_and_a_half_filled_form_stay_when_an_experiment_appears(outputs, params):
    board = open_board(outputs)
    click(board, "Undo remove")
    board.form.words["title"].field.value = "A title"
    (params / "DEMO-00.yaml").write_text(
        (params / "DEMO-01.yaml").read_text().replace("id: DEMO-01", "id: DEMO-00")
    )
    board.refresh()
    assert "DEMO-00" in dict(board.experiment.choice.options).values()
    assert board.experiment.choice.value == "DEMO-02"
    assert "trash is empty" in board.runs.message.value
    assert board.form.words["title"].field.value == "A title"


def test_the_clicked_row_stays_marked(outputs):
    runs_factory.make_demo(outputs, seeds=(1,))
    board = open_board(outputs)
    mark = "<tr data-run='DEMO-04_frozen_gaussian/seed1' class='marked'>"
    board.table.clicked.value = "DEMO-04_frozen_gaussian/seed1"
    assert mark in board.table.table.value
    runs_factory.make_run(outputs, "DEMO-01", 2)
    board.refresh()
    assert mark in board.table.table.value
    board.table.clicked.value = "GPT-01"
    assert board.table.table.value.count("class='marked'") == 1
    assert "<tr data-run='GPT-01' class='marked'>" in board.table.table.value


def test_a_second_click_on_save_writes_no_second_experiment(outputs, params):
    board = open_board(outputs)
    for _ in range(2):
        board.form.save.click()
    assert (params / "DEMO-05.yaml").is_file() and not (params / "DEMO-06.yaml").exists()
    assert board.experiment.choice.value == "DEMO-05"
    assert "Saved as params/DEMO-05.yaml. Change something" in board.form.message.value
    board.form.fields["model.num_heads"].field.value = "2"
    board.form.save.click()
    assert (params / "DEMO-06.yaml").is_file()
