import json
import os

import pytest

from oelm_lib import config
from oelm_lib.config import overrides_text
from oelm_lib.errors import DONE, FAILED, STOPPED, UserError
from oelm_lib.launch.jobs import (
    Job,
    active_writer,
    describe_end,
    failure_reason,
    make_jobs,
    mark_queued,
    remove_untouched,
    unmark_queued,
)
from oelm_lib.launch.notebook import progress_line
from oelm_lib.runs.overview import overview
from oelm_lib.runs.reading import read_status
from oelm_lib.runs.reading import state as run_state
from tests import runs_factory


def test_jobs_are_every_experiment_and_seed_once():
    jobs = make_jobs(["DEMO-0[1-4]", "DEMO-01"], [1, 2], {})
    assert [(job.exp, job.seed) for job in jobs] == [
        (f"DEMO-0{n}", seed) for seed in (1, 2) for n in (1, 2, 3, 4)
    ]
    assert jobs[0].path == config.outputs_dir() / "DEMO-01_baseline" / "seed1"


def test_a_glob_that_matches_nothing_and_a_wrong_override_are_refused():
    with pytest.raises(UserError, match=r"no experiment 'NONE-\*'"):
        make_jobs(["NONE-*"], [1], {})
    with pytest.raises(UserError, match=r"no experiment 'DEMO-7\*' .did you mean DEMO-0"):
        make_jobs(["DEMO-7*"], [1], {})
    with pytest.raises(UserError, match=r"unknown key train\.x"):
        make_jobs(["DEMO-01"], [1], {"train.x": 1})


def test_overrides_survive_the_way_through_text():
    overrides = {
        "train.max_steps": 5,
        "model.frozen_layers": [0, 1],
        "data.corpus": "stories",
        "optim.learning_rate": 1e-3,
    }
    text = overrides_text(overrides)
    assert "\n" not in text
    assert config.parse_overrides(text) == overrides


@pytest.mark.parametrize("text", ["demo-02", "params/DEMO-02.yaml", "demo-?2", "DEMO-02"])
def test_an_experiment_is_understood_as_people_type_it(text):
    assert [job.exp for job in make_jobs([text], [1], {})] == ["DEMO-02"]


@pytest.fixture
def job(tmp_path):
    path = tmp_path / "DEMO-01_baseline" / "seed1"
    path.mkdir(parents=True)
    return Job("DEMO-01", 1, path, 24, 1, test=True)


SUMMARY = {"steps": 24, "best_val_loss": 2.0, "final_val_loss": 2.0, "final_test_loss": None}


def write(path, name, value):
    (path / name).write_text(json.dumps(value))


def test_a_run_that_diverged_is_done_and_described(job):
    write(job.path, "summary.json", SUMMARY | {"best_val_loss": None, "final_val_loss": None})
    assert job.done
    assert describe_end(job, DONE, 61.0) == (
        "DEMO-01 seed 1: done in 1m 01s, diverged (no finite val_loss)"
    )


def test_a_run_is_done_when_it_has_the_scores_asked_for(job):
    assert not job.done
    write(job.path, "summary.json", SUMMARY)
    assert not job.done
    write(job.path, "summary.json", SUMMARY | {"final_test_loss": 2.1})
    assert job.done
    assert "val_loss 2.0000, perplexity 7.389" in describe_end(job, DONE, 1.0)


@pytest.mark.parametrize(
    ("status", "line"),
    [
        ({}, None),
        ({"state": "running"}, None),
        ({"state": "running", "step": None, "max_steps": None, "heartbeat": None}, None),
        (
            {"state": "evaluating", "step": 3, "max_steps": 9, "evals": [[0, None]], "best": None},
            "evaluating  step 3/9 (33%)",
        ),
        (
            {"state": "running", "step": 3, "max_steps": 9, "train_loss": None, "gpus": None},
            "running  step 3/9 (33%)",
        ),
        ([1], None),
        ("text", None),
    ],
)
def test_a_strange_status_of_one_run_ends_no_queue(job, status, line):
    write(job.path, "status.json", status)
    assert active_writer(job.path) is None  # no live process is named
    assert not job.done
    assert progress_line(job.path) == (f"DEMO-01_baseline/seed1 {line}" if line else None)
    assert describe_end(job, FAILED, 1.0) == "DEMO-01 seed 1: failed after 1s"
    assert "the same command continues it" in describe_end(job, STOPPED, 1.0)


def test_the_reason_of_a_failure_is_the_last_line_of_its_log(job):
    assert failure_reason(job, 3) == "exit code 3"
    (job.path / "notebook.log").write_bytes(b"loading\noelm: the corpus x is not prepared\xff\n")
    assert failure_reason(job, 2) == "the corpus x is not prepared\ufffd"
    assert failure_reason(job, -9) == "ended by signal 9 (Killed)"


def test_only_a_folder_in_which_nothing_began_is_removed(job):
    mark_queued(job)
    assert run_state(job.path) == "queued"
    (job.path / "notebook.log").write_text("oelm: no")
    remove_untouched(job)
    assert not job.path.parent.exists()
    mark_queued(job)
    (job.path / "metrics.jsonl").write_text("")
    remove_untouched(job)
    assert (job.path / "status.json").is_file()


@pytest.mark.parametrize("state", ["stopped", "failed", "dead"])
def test_a_run_that_waits_is_queued_whatever_it_was_and_is_that_again_after(tmp_path, state):
    path = runs_factory.make_run(tmp_path, "DEMO-01", 1, state=state, done=0.5)
    job = Job("DEMO-01", 1, path, 650, 1)
    before = read_status(path)
    mark_queued(job)
    assert run_state(path) == "queued"
    during = read_status(path)
    assert during["step"] == before["step"] and during["evals"] == before["evals"]
    (row,) = overview("DEMO-01", tmp_path)
    assert row["state"] == "queued" and row["reason"] == ""
    unmark_queued(job, before)
    assert read_status(path) == before and run_state(path) == state


def test_a_status_without_a_state_is_not_written_back(job):
    write(job.path, "status.json", {})
    before = read_status(job.path)
    write(job.path, "status.json", {"state": "queued", "pid": os.getpid()})
    unmark_queued(job, before)
    assert not job.path.exists()


def test_a_disk_that_takes_no_mark_ends_no_queue(tmp_path):
    path = runs_factory.make_run(tmp_path, "DEMO-01", 1, state="stopped", done=0.5)
    job, before = Job("DEMO-01", 1, path, 650, 1), read_status(path)
    temporary = path / f".status.json.{os.getpid()}.tmp"
    temporary.mkdir()
    mark_queued(job)
    assert read_status(path) == before
    temporary.rmdir()
    mark_queued(job)
    assert run_state(path) == "queued"
    temporary.mkdir()
    unmark_queued(job, before)
    assert read_status(path)["state"] == "queued"


def test_a_run_that_trains_or_is_done_is_not_marked_as_queued(tmp_path):
    for seed, state in enumerate(("running", "done")):
        path = runs_factory.make_run(tmp_path, "DEMO-01", seed, state=state, done=0.5)
        mark_queued(Job("DEMO-01", seed, path, 650, 1))
        assert run_state(path) == state
