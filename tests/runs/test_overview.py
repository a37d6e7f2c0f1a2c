import json
import time

import pytest
import yaml

from oelm_lib import config
from oelm_lib.errors import UserError
from oelm_lib.files import write_json
from oelm_lib.runs.find import find_active_runs, find_run, find_runs
from oelm_lib.runs.lock import RunLock
from oelm_lib.runs.logs import log_lines
from oelm_lib.runs.overview import overview, table
from oelm_lib.runs.process import this_process
from oelm_lib.runs.schema import FORMAT, ConfigRecord
from tests import runs_factory

NOW = {"state": "running", "step": 400, "max_steps": 1000, "train_loss": 2.5, "steps_per_s": 8.0}
NOW |= {
    "tokens_per_s": 4096.0,
    "eta_seconds": [60.0, 90.0],
    "device": "NVIDIA X",
    "gpus": "2",
    "memory_bytes": 3 << 30,
}
NOW |= {"best": {"step": 300, "loss": 2.0}, "error": None}


@pytest.fixture
def make_run(tmp_path):
    """A function from the fields of a status.json to a run folder as a trainer writes it."""

    locks = []

    def make(exp="DEMO-01", seed=1, overrides="", summary=None, alive=True, **fields):
        folder = config.load_config(exp).folder + overrides
        path = tmp_path / folder / f"seed{seed}"
        path.mkdir(parents=True)
        write_json(
            path / "status.json",
            NOW | this_process() | {"heartbeat": time.time(), "evals": []} | fields,
        )
        record = {key: {} for key in ConfigRecord.model_fields}
        record |= {"format": FORMAT, "kind": "", "label": "", "seed": seed}
        record |= {"experiment": config.load_config(exp).to_dict()}
        (path / "config.yaml").write_text(yaml.safe_dump(record))
        if summary:
            write_json(path / "summary.json", summary)
        if fields.get("host"):
            write_json(path / "lock.json", {"boot": "elsewhere"})
        elif alive:
            locks.append(RunLock(path))
            locks[-1].acquire()
        return path

    yield make
    for lock in locks:
        lock.release()


def test_a_diverged_run_is_listed_like_any_other(make_run, tmp_path):
    make_run(evals=[[100, 3.0]])
    make_run("DEMO-02", evals=[[100, 1000.0]])
    assert "+inf% DEMO-01 (100)" in table(overview(outputs=tmp_path))


def test_a_row_says_where_a_run_stands(make_run, tmp_path):
    make_run(evals=[[100, 3.0], [300, 2.0]])
    make_run("DEMO-02", evals=[[100, 3.5], [300, 2.1], [400, 2.05]])
    base, arm = overview(outputs=tmp_path)
    assert (base["state"], base["reason"]) == ("running", "")
    assert (base["share"], base.get("gap")) == (0.4, None)
    assert base["best_val_perplexity"] == pytest.approx(7.389, abs=1e-3)
    assert (arm["gap_base"], arm["gap_step"]) == ("DEMO-01", 300)
    assert arm["gap"] == pytest.approx(0.10517, abs=1e-5)
    text = table([base, arm])
    assert text.splitlines()[0] == "2 runs: 2 running"
    for shown in (
        "40%",
        "7.39",
        "+10.5% DEMO-01 (300)",
        "8.00",
        "4,096",
        "1m 00s - 1m 30s (",
        "NVIDIA X [2]",
        "3.0",
    ):
        assert shown in text
    assert {len(line) <= 60 for line in table([base, arm], 60).splitlines()} == {True}


def test_the_gap_is_to_the_run_with_the_same_seed_and_overrides(make_run, tmp_path):
    make_run(seed=2, evals=[[100, 1.0]])
    make_run(overrides="+aa", evals=[[100, 2.0]])
    make_run("DEMO-02", overrides="+aa", evals=[[100, 2.0]])
    make_run("DEMO-02", overrides="+bb", evals=[[100, 2.0]])
    gaps = {row["run"]: row.get("gap") for row in overview("DEMO-02", tmp_path)}
    assert gaps == {"DEMO-02_oelm_freeze+aa/seed1": 0.0, "DEMO-02_oelm_freeze+bb/seed1": None}


def test_a_run_that_was_asked_to_stop_says_so_until_it_has(make_run, tmp_path):
    for path in (make_run(), make_run("DEMO-02", state="stopped", alive=False)):
        (path / "STOP").touch()
    assert [row["reason"] for row in overview(outputs=tmp_path)] == ["asked to save and stop", ""]


def test_a_writer_that_is_gone_shows_as_dead_and_a_queue_that_is_gone_holds_nothing(
    make_run, tmp_path
):
    make_run(seed=1, alive=False)
    beat = time.time() - 500
    make_run(seed=2, host="elsewhere", heartbeat=beat)
    make_run(seed=3, host="elsewhere", heartbeat=time.time() - 10)
    make_run(seed=4, state="queued")
    make_run(seed=5, state="queued", process_start=0.0)
    make_run(seed=6, state="queued", process_start=0.0, job="12_3")
    rows = overview(outputs=tmp_path)
    latest = time.time()
    assert [row["state"] for row in rows] == [
        "dead?",
        "dead?",
        "running",
        "queued",
        "stopped",
        "queued",
    ]
    assert 500 <= rows[1]["heartbeat_age"] <= latest - beat
    assert rows[0]["eta_seconds"] is None
    assert rows[5]["reason"] == "Slurm job 12_3"


def test_done_failed_and_broken_runs_say_so(make_run, tmp_path):
    make_run(
        seed=1, state="done", summary={"best_val_loss": 0.0, "final_val_loss": 0.1, "steps": 1000}
    )
    make_run(seed=2, state="failed", error="loss is nan")
    (make_run(seed=3) / "status.json").write_text("{")
    (tmp_path / "DEMO-01_baseline" / "seed4").mkdir()
    rows = overview(outputs=tmp_path)
    assert [row["state"] for row in rows] == ["done", "failed", "unreadable", "empty"]
    assert (rows[0]["share"], rows[0]["best_val_perplexity"]) == (1.0, 1.0)
    assert rows[1]["reason"] == "loss is nan"
    assert "status.json: not readable" in rows[2]["reason"]
    assert "unreadable" in table(rows)
    json.dumps(rows)
    assert f"no such runs yet in {config.outputs_dir()}; start one" in table([])


def test_a_name_means_every_run_of_it_that_trains(make_run, tmp_path):
    running, done = make_run(seed=1), make_run(seed=2, state="done")
    also_running, rehearsal = make_run(seed=3), make_run(seed=1, overrides="+aa")
    assert find_active_runs("DEMO-01", tmp_path) == [running, also_running]
    assert find_active_runs("DEMO-01/seed2", tmp_path) == [done]
    assert find_active_runs(str(rehearsal)) == [rehearsal]
    for seed in (1, 2):
        make_run("DEMO-02", seed, state="done")
    with pytest.raises(UserError, match="none of the 2 runs called 'DEMO-02' is being trained"):
        find_active_runs("DEMO-02", tmp_path)
    with pytest.raises(UserError, match="no run is called 'DEMO-03'"):
        find_active_runs("DEMO-03", tmp_path)


def test_a_run_is_found_by_what_people_call_it(make_run, tmp_path):
    one, rehearsal, other = (
        make_run(seed=1),
        make_run(seed=1, overrides="+aa"),
        make_run("DEMO-02", seed=7),
    )
    assert find_run(str(rehearsal)) == rehearsal
    assert find_run("DEMO-02", tmp_path) == find_run("DEMO-02_oelm_freeze/seed7", tmp_path) == other
    assert (
        find_run("DEMO-01/seed1", tmp_path) == one
    )  # the experiment itself before a rehearsal of it
    make_run(seed=2)
    with pytest.raises(
        UserError, match=r"2 runs are called 'DEMO-01': .*seed2.*; name one as FOLDER/seed"
    ):
        find_run("DEMO-01", tmp_path)
    lines = []
    assert find_run("DEMO-01", tmp_path, lines.append) == one
    assert lines == ["DEMO-01 has 2 seeds; using the lowest, DEMO-01_baseline/seed1"]
    assert find_run("demo-02", tmp_path) == find_run("params/DEMO-02.yaml", tmp_path) == other
    assert find_run("demo-01/seed1", tmp_path) == one
    with pytest.raises(UserError, match=r"no run is called 'DEMO-03' .did you mean DEMO-0"):
        find_run("DEMO-03", tmp_path)


def test_of_many_runs_with_a_name_three_are_named(make_run, tmp_path):
    for seed in (1, 2, 3):
        make_run(seed=seed)
    with pytest.raises(UserError, match=r"3 runs are called 'DEMO-01': .*/seed3; name one"):
        find_run("DEMO-01", tmp_path)
    make_run(seed=4)
    with pytest.raises(UserError, match=r"4 runs are called 'DEMO-01': .*/seed3, \.\.\.; name one"):
        find_run("DEMO-01", tmp_path)


def test_a_table_aligns_words_left_and_numbers_right():
    rows = [
        {
            "run": "A/seed1",
            "state": "done",
            "step": 1000,
            "train_loss": 2.5,
            "memory_bytes": 3 << 29,
        },
        {"run": "AB_b/seed1", "state": "running", "step": 5, "train_loss": None},
    ]
    assert table(rows) == (
        "2 runs: 1 done, 1 running\n"
        "run         state     step  train loss  GiB\n"
        "A/seed1     done     1,000      2.5000  1.5\n"
        "AB_b/seed1  running      5"
    )
    assert table(rows, width=12).splitlines()[1:] == [
        "run         ",
        "A/seed1     ",
        "AB_b/seed1  ",
    ]


def test_a_rehearsal_is_named_by_its_overrides(tmp_path):
    runs_factory.make_run(tmp_path, "DEMO-01")
    runs_factory.make_run(tmp_path, "DEMO-01", overrides={"train.max_steps": 130})
    rows = overview(outputs=tmp_path)
    assert [row["overrides"] for row in rows] == ["", "train.max_steps=130"]
    assert "train.max_steps=130" in table(rows)


def test_rehearsals_are_found_by_a_plus_sign_and_left_out_on_request(make_run, tmp_path):
    experiment, rehearsal = make_run(seed=1), make_run(seed=1, overrides="+aa")
    assert find_runs(tmp_path, "*+*") == find_runs(tmp_path, ["DEMO-01*+a?"]) == [rehearsal]
    assert find_runs(tmp_path, "DEMO-01") == [experiment, rehearsal]
    assert find_runs(tmp_path, "DEMO-01", rehearsals=False) == [experiment]
    assert find_runs(tmp_path, "DEMO-01 *+*", rehearsals=False) == [experiment, rehearsal]
    assert [row["run"] for row in overview(["*+*"], tmp_path)] == ["DEMO-01_baseline+aa/seed1"]


@pytest.mark.parametrize(
    "name", ["demo-01", "params/DEMO-01.yaml", "demo-01/seed1", "demo-0[12]/seed*", "DEMO-*_base*"]
)
def test_lists_of_runs_take_the_names_that_one_run_takes(make_run, tmp_path, name):
    run, other = make_run(seed=1), make_run("MQAR-01", seed=1)
    assert find_runs(tmp_path, name) == [run] == [find_run(name, tmp_path)]
    assert find_runs(tmp_path, "DEMO-01_base* MQAR-01/seed2 */seed1") == [run, other]


def test_a_log_is_followed_until_the_run_ends(make_run):
    path = make_run(seed=1)
    with pytest.raises(UserError, match=r"no training.log or notebook.log yet"):
        next(log_lines(path, 5))
    log = path / "training.log"
    log.write_text("a\nb\nc\n")
    assert list(log_lines(path, 2)) == ["b", "c"]
    lines = log_lines(path, 1, follow=True)
    assert next(lines) == "c"
    log.write_text("a\nb\nc\nd\n")
    assert next(lines) == "d"
    log.write_text("a\n")  # gone on from an earlier checkpoint
    write_json(path / "status.json", NOW | {"state": "done"})
    assert list(lines) == ["(done)"]


@pytest.mark.parametrize(
    ("alive", "status", "old"),
    [
        (False, {"state": "queued"}, ["training.log", "notebook.log"]),  # stopped before
        (False, {"state": "queued"}, []),
        (True, {"state": ""}, ["notebook.log"]),  # opened, and torch is being imported
        (True, {"state": "running"}, ["notebook.log"]),  # its model is being made
    ],
)
def test_a_run_that_has_yet_to_begin_is_waited_for(make_run, monkeypatch, alive, status, old):
    """Its log ended at once, or was not found, or was that of the notebook."""
    path = make_run(seed=1, alive=alive, **status)
    for name in old:
        (path / name).write_text("old\n")

    def begin_and_end(seconds):
        (path / "training.log").write_text("a\n")
        write_json(path / "status.json", NOW | {"state": "done"})

    monkeypatch.setattr(time, "sleep", begin_and_end)
    lines = log_lines(path, 5, follow=True)
    assert "lines follow when the run begins to train" in next(lines)
    assert list(lines) == ["a", "(done)"]


def test_a_queued_run_whose_queue_has_ended_is_not_waited_for(make_run):
    path = make_run(seed=1, alive=False, state="queued", pid=0)
    with pytest.raises(UserError, match=r"no training.log or notebook.log yet"):
        next(log_lines(path, 5, follow=True))


def test_a_line_that_is_being_written_is_followed_as_one_line(make_run):
    log = make_run(seed=1) / "training.log"
    line = '[Step 5] Sample - "été\u2028"'.encode()  # its separator ends no line of a file
    for cut in range(1, len(line)):
        log.write_bytes(b"a\n" + line[:cut])
        lines = log_lines(log.parent, 5, follow=True)
        assert next(lines) == "a"
        log.write_bytes(b"a\n" + line + b"\nb\n")
        assert [next(lines), next(lines)] == [line.decode(), "b"]
    log.write_bytes(b"a\n" + line)
    assert list(log_lines(log.parent, 5)) == ["a", line.decode()]
    lines = log_lines(log.parent, 5, follow=True)
    assert next(lines) == "a"
    write_json(log.parent / "status.json", NOW | {"state": "failed"})
    assert list(lines) == [line.decode(), "(failed)"]


def test_of_a_progress_line_the_last_state_is_shown(make_run):
    log = make_run(seed=1) / "notebook.log"
    log.write_bytes(b"10%\r90%\r\nend\n")
    assert list(log_lines(log.parent, 2)) == ["90%", "end"]


def test_a_log_is_followed_without_its_earlier_lines(make_run):
    log = make_run(seed=1) / "training.log"
    log.write_text("a\nb\n")
    assert list(log_lines(log.parent, 0)) == []
    write_json(log.parent / "status.json", NOW | {"state": "done"})
    assert list(log_lines(log.parent, 0, follow=True)) == ["(done)"]


def test_a_run_that_is_moved_away_ends_the_following_of_its_log(make_run):
    path = make_run(seed=1)
    (path / "training.log").write_text("a\n")
    lines = log_lines(path, 1, follow=True)
    assert next(lines) == "a"
    path.rename(path.with_name("seed1.old"))
    assert list(lines) == ["(empty)"]


def test_an_evaluation_that_is_no_number_is_left_out_and_no_other_run_suffers(make_run, tmp_path):
    make_run(evals=[[100, 3.0], [300, 2.0]])
    make_run("DEMO-02", evals=[[100, 3.5], [300, None]], best={"step": 300, "loss": None})
    make_run(
        "DEMO-03", evals=[[300, None]], best=None, train_loss=None, state="failed", error="inf"
    )
    rows = overview(outputs=tmp_path)
    assert [row.get("gap_step") for row in rows] == [None, 100, None]
    assert [row["best_val_perplexity"] is None for row in rows] == [False, True, True]
    assert len(table(rows).splitlines()) == 5


def test_a_baseline_that_cannot_be_read_leaves_its_arms_without_a_gap(make_run, tmp_path):
    (make_run(evals=[[100, 3.0]]) / "status.json").write_text("{")
    make_run("DEMO-02", evals=[[100, 3.5]])
    rows = overview(outputs=tmp_path)
    assert [(row["state"], row.get("gap")) for row in rows] == [
        ("unreadable", None),
        ("running", None),
    ]


def test_an_arm_with_one_broken_config_still_knows_its_baseline(make_run, tmp_path):
    make_run(evals=[[100, 3.0]])
    make_run(seed=2, evals=[[100, 3.0]])
    (make_run("DEMO-02", evals=[[100, 3.0]]) / "config.yaml").write_text("[" * 40_000)
    make_run("DEMO-02", seed=2, evals=[[100, 3.0]])
    assert [row.get("gap") for row in overview("DEMO-02", tmp_path)] == [0.0, 0.0]


def test_a_summary_with_any_byte_changed_is_named_or_unchanged(make_run, tmp_path):
    path = make_run(state="done")
    summary = {"best_val_loss": 1.25, "final_val_loss": 1.5, "steps": 1000, "epochs": 2.0}
    write_json(path / "summary.json", summary, checksum=True)
    good, (right,) = (path / "summary.json").read_bytes(), overview(outputs=tmp_path)
    for place in range(0, len(good), 3):
        changed = bytes([good[place] ^ 2])
        (path / "summary.json").write_bytes(good[:place] + changed + good[place + 1 :])
        (row,) = overview(outputs=tmp_path)
        if row["state"] == "unreadable":
            assert "summary.json" in row["reason"]
        else:
            assert row["best_val_perplexity"] == right["best_val_perplexity"]
            assert row["step"] == right["step"]
