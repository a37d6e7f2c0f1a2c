"""Rows of the workbench's table: read once, chosen, ordered, grouped, rendered."""

import os
import re
import shutil

import pytest

from oelm_lib.config import load_config
from oelm_lib.errors import UserError
from oelm_lib.runs.notes import Notes, read_notes, write_notes
from oelm_lib.runs.overview import overview
from oelm_lib.workbench import rows as rows_module
from oelm_lib.workbench.experiment import time_line
from oelm_lib.workbench.rows import NOT_RUN, RunRows
from oelm_lib.workbench.table import count_states, group_rows, run_id, select_rows, table_html
from tests import runs_factory


@pytest.fixture
def reader(tmp_path):
    runs_factory.make_run(tmp_path, "DEMO-01", 1)
    runs_factory.make_run(tmp_path, "DEMO-02", 1, state="stopped", done=0.5)
    runs_factory.make_run(tmp_path, "DEMO-02", 2, overrides={"train.max_steps": 130})
    return RunRows(tmp_path)


def states(rows):
    return {row["run"]: row["state"] for row in rows}


def test_every_run_and_every_experiment_without_one_has_a_row(reader):
    rows = {row["run"]: row for row in reader.read()}
    run = rows["DEMO-02_oelm_freeze/seed1"]
    assert (run["id"], run["seed"], run["arm"]) == ("DEMO-02", 1, "OELM-Freeze")
    assert (run["corpus"], run["compare_to"], run["state"]) == ("stories", "DEMO-01", "stopped")
    assert run["gap_base"] == "DEMO-01"
    assert rows["DEMO-03"]["state"] == NOT_RUN and rows["DEMO-03"]["arm"] == "OELM-Random"
    assert "DEMO-01" not in rows and "DEMO-02" not in rows
    assert sum("+" in name for name in rows) == 1


def test_a_look_reads_only_experiments_that_changed_and_arms_of_their_baseline(
    reader, tmp_path, monkeypatch
):
    first = reader.read()
    asked = []
    look = lambda exps, outputs: asked.append(exps) or overview(exps, outputs)  # noqa: E731
    monkeypatch.setattr(rows_module, "overview", look)
    assert reader.read() is first and asked == []
    runs_factory.make_run(tmp_path, "DEMO-02", 3)
    assert len(reader.read()) == len(first) + 1 and asked == [["DEMO-02"]]
    os.utime(tmp_path / "DEMO-01_baseline" / "seed1" / "status.json", (1, 1))
    reader.read()
    assert {"DEMO-01", "DEMO-02", "DEMO-03"} <= set(asked[1]) and "GPT-02" not in asked[1]


def test_a_run_in_progress_is_read_at_each_look_and_a_removed_one_disappears(reader, tmp_path):
    path = runs_factory.make_run(tmp_path, "DEMO-03", 1, state="running", done=0.5)
    assert states(reader.read())["DEMO-03_oelm_random/seed1"] == "running"
    (path / "lock.json").unlink()  # its writer ends without a word
    assert states(reader.read())["DEMO-03_oelm_random/seed1"] != "running"
    shutil.rmtree(path.parent)
    assert states(reader.read())["DEMO-03"] == NOT_RUN


def test_an_arm_has_the_title_of_its_newest_record(reader, tmp_path):
    reader.read()
    for seed, title in ((3, "A second title"), (1, "A third")):  # seed 1 is started afresh
        shutil.rmtree(tmp_path / "DEMO-02_oelm_freeze" / f"seed{seed}", ignore_errors=True)
        changes = {"title": title, "compare_to": "DEMO-03"}
        runs_factory.make_run(tmp_path, "DEMO-02", seed, experiment=changes)
        rows = [row for row in reader.read() if row["run"].startswith("DEMO-02_oelm_freeze/")]
        assert {(row["title"], row["compare_to"]) for row in rows} == {(title, "DEMO-03")}
        assert rows == [row for row in RunRows(tmp_path).read() if row in rows]
    assert len(rows) == 2


def test_a_run_that_is_removed_during_a_failed_look_can_come_back(reader, tmp_path, monkeypatch):
    first = reader.read()
    arm, aside = tmp_path / "DEMO-01_baseline", tmp_path.with_name(f"{tmp_path.name}-aside")
    arm.rename(aside)
    runs_factory.make_run(tmp_path, "DEMO-03", 1)
    with monkeypatch.context() as patch:
        patch.setattr(rows_module, "overview", lambda exps, outputs: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            reader.read()
    aside.rename(arm)
    rows = reader.read()
    assert "DEMO-01_baseline/seed1" in states(rows) and len(rows) == len(first)


def test_notes_are_kept_in_the_run_folder_and_shown(reader, tmp_path):
    path = tmp_path / "DEMO-01_baseline" / "seed1"
    assert read_notes(path) == Notes()
    notes = Notes(("good", "paper"), "<b>keep</b> this", True)
    write_notes(path, notes)
    assert read_notes(path) == notes
    rows = reader.read()
    row = next(row for row in rows if row["id"] == "DEMO-01")
    assert (row["tags"], row["note"], row["hidden"]) == ("good paper", "<b>keep</b> this", True)
    assert row not in select_rows(rows) and row in select_rows(rows, with_hidden=True)
    assert "&lt;b&gt;keep" in table_html({"": [row]})


@pytest.mark.parametrize("text", ['{"tags": "x"}', '{"hidden": 1}', "[", '{"note": null}'])
def test_a_broken_notes_file_is_one_line_in_the_row(reader, tmp_path, text):
    (tmp_path / "DEMO-01_baseline" / "seed1" / "notes.json").write_text(text)
    row = next(row for row in reader.read() if row["id"] == "DEMO-01")
    assert row["state"] == "done" and "notes.json" in row["reason"]


def test_notes_of_a_folder_that_is_gone_are_one_line(tmp_path):
    with pytest.raises(UserError, match="notes cannot be written"):
        write_notes(tmp_path / "gone" / "seed1", Notes())
    with pytest.raises(UserError, match="at most"):
        write_notes(tmp_path, Notes(note="x" * 10_001))


def test_search_finds_parts_globs_arms_and_tags_and_every_word_must_match(reader, tmp_path):
    write_notes(tmp_path / "DEMO-01_baseline" / "seed1", Notes(("paper",)))
    rows = reader.read()
    found = lambda words, state="": set(states(select_rows(rows, words, state)))  # noqa: E731
    assert found("paper") == {"DEMO-01_baseline/seed1"}
    for name in ("demo-02*seed1", "DEMO-02/seed1", "DEMO-02/1"):
        assert found(name) == {"DEMO-02_oelm_freeze/seed1"}
    assert found("OELM-Freeze stories", "stopped") == {"DEMO-02_oelm_freeze/seed1"}
    assert found("freeze nothing-like-it") == set()
    assert found("seed", NOT_RUN) == set()
    assert all(name.startswith("GPT") for name in found("GPT-", NOT_RUN))


def test_rows_are_ordered_and_grouped_and_those_without_a_value_come_last(reader):
    rows = reader.read()
    groups = group_rows(rows, "corpus", "run")
    assert list(groups) == sorted(groups) and {"stories", "mqar"} <= set(groups)
    assert sum(map(len, groups.values())) == len(rows)
    by_loss = group_rows(rows, "", "best_val_perplexity")[""]
    values = [row.get("best_val_perplexity") for row in by_loss]
    known = [value for value in values if value is not None]
    assert len(known) == 3 and known == sorted(known) and values[:3] == known
    latest = group_rows(rows)[""][0]
    assert latest["changed"] == max(row["changed"] for row in rows)
    assert count_states(rows).startswith("3 runs: ") and "not run" in count_states(rows)


def test_the_time_of_a_run_is_measured_without_rehearsals(tmp_path):
    runs_factory.make_run(tmp_path, "DEMO-02", 2, overrides={"train.max_steps": 130})
    experiment, rows = load_config("DEMO-02"), RunRows(tmp_path)
    assert time_line(experiment, rows.read()).startswith("not measured yet")
    runs_factory.make_run(tmp_path, "DEMO-02", 2)
    own = [row for row in rows.read() if row["id"] == "DEMO-02"]
    assert "per run, measured (runs done: 1)" in time_line(experiment, own)


def test_the_first_columns_fit_a_narrow_window_and_the_whole_name_is_under_the_pointer(reader):
    table = table_html({"": reader.read()})
    headings = re.findall("<th class[^>]*>([^<]*)", table)
    assert headings[:5] == ["run", "state", "%", "gap (at step)", "best val ppl"]
    assert headings.index("arm") < headings.index("step") < headings.index("device")
    assert "title='DEMO-02_oelm_freeze/seed1'>DEMO-02/1</td>" in table
    assert run_id("DEMO-02_oelm_freeze+0123abcd/seed42") == "DEMO-02+0123abcd/42"
    assert run_id("GPT-01") == "GPT-01"


def test_the_table_has_a_row_for_each_run_and_says_where_there_is_none(reader):
    rows = reader.read()
    table = table_html(group_rows(rows, "state"))
    assert table.count("<tr data-run=") == len(rows) and "not run (" in table
    assert "No such runs" in table_html({})
