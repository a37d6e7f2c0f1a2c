import errno
import fcntl
import json
import os
import subprocess
import sys
import threading

import pytest
import study_factory as factory

from oelm_lib.errors import UserError
from oelm_lib.files import append_line, with_checksum
from oelm_lib.study.cell import BASE_SIZE, Cell, PlannedRun
from oelm_lib.study.checks import check_corpora, check_records
from oelm_lib.study.records import append_record, make_record, read_records
from tests.runs_factory import make_run

PLAN = factory.make_plan()
CELL = Cell("stories", BASE_SIZE, "frozen")


def line(seed=1, loss=3.0, rate=0.01, **changes):
    return factory.make_line(PLAN, CELL, rate, seed, loss, **changes)


def test_records_come_back_as_they_were_written(tmp_path):
    path = tmp_path / "new" / "runs.jsonl"
    assert append_record(path, line(seed=1))
    assert append_record(path, line(seed=2, loss=None))
    first, second = read_records(path)
    assert (first.cell, first.rate, first.seed, first.val_loss) == (CELL, 0.01, 1, 3.0)
    assert (second.status, second.loss("val")) == ("diverged", None)
    assert read_records(tmp_path / "none.jsonl") == []


def test_a_run_is_recorded_once(tmp_path):
    path = tmp_path / "runs.jsonl"
    assert append_record(path, line())
    assert not append_record(path, line(loss=2.0))
    assert [record.val_loss for record in read_records(path)] == [3.0]


def test_only_a_torn_tail_is_cut(tmp_path):
    path = tmp_path / "runs.jsonl"
    append_record(path, line(seed=1))
    whole = path.read_bytes()
    path.write_bytes(whole + whole[: len(whole) // 2])
    assert len(read_records(path)) == 1
    append_record(path, line(seed=2))
    assert [record.seed for record in read_records(path)] == [1, 2]
    assert path.read_bytes().startswith(whole)


def test_a_last_record_without_its_newline_stays(tmp_path):
    """As an editor saves the file, or a crash leaves it one byte before its end."""
    path = tmp_path / "runs.jsonl"
    for seed in (1, 2):
        append_record(path, line(seed=seed))
    whole = path.read_bytes()
    path.write_bytes(whole.removesuffix(b"\n"))
    assert [record.seed for record in read_records(path)] == [1, 2]
    assert not append_record(path, line(seed=2))
    assert append_record(path, line(seed=3))
    assert [record.seed for record in read_records(path)] == [1, 2, 3]
    assert path.read_bytes().startswith(whole)
    damaged = path.read_bytes().removesuffix(b"\n").replace(b'"seed":3', b'"seed":4')
    path.write_bytes(damaged)
    with pytest.raises(UserError, match="line 3 fails its checksum"):
        append_record(path, line(seed=5))
    assert path.read_bytes() == damaged


def test_two_engines_that_append_at_once_lose_nothing(tmp_path):
    """Others write while the first is between reading the file and writing to it.

    One of them has the first one's run: it looks for it once the first has written.
    """
    path = tmp_path / "runs.jsonl"
    append_record(path, line(seed=1))
    path.write_bytes(path.read_bytes() + b'{"torn')
    code = (
        "import json, sys; from pathlib import Path;"
        "from oelm_lib.study.records import append_record;"
        "print(flush=True);"
        "append_record(Path(sys.argv[1]), json.loads(sys.argv[2]))"
    )
    others = []

    def interleave(lines):
        assert b"torn" not in lines
        for seed in (2, 3):
            command = [sys.executable, "-c", code, str(path), json.dumps(line(seed=seed))]
            others.append(subprocess.Popen(command, env=os.environ, stdout=subprocess.PIPE))
        for other in others:
            assert other.stdout.readline() == b"\n"  # it is about to append
            with pytest.raises(subprocess.TimeoutExpired):
                other.wait(1.0)  # it waits for the lock

    append_line(path, json.dumps(with_checksum(line(seed=2))), unless=interleave)
    assert [other.wait(60) for other in others] == [0, 0]
    assert [record.seed for record in read_records(path)] == [1, 2, 3]


def test_many_writers_lose_nothing(tmp_path):
    path = tmp_path / "runs.jsonl"
    threads = [
        threading.Thread(target=append_record, args=(path, line(seed=seed))) for seed in range(20)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(record.seed for record in read_records(path)) == list(range(20))


@pytest.mark.parametrize("broken", [b"{}", b"null", b"[1]", b"\xff", b'{"study": "test"}'])
def test_a_broken_line_is_named_and_nothing_is_written(tmp_path, broken):
    path = tmp_path / "runs.jsonl"
    append_record(path, line(seed=1))
    path.write_bytes(broken + b"\n" + path.read_bytes())
    before = path.read_bytes()
    with pytest.raises(UserError, match="line 1 is not a record"):
        read_records(path)
    with pytest.raises(UserError, match="line 1 is not a record"):
        append_record(path, line(seed=2))
    assert path.read_bytes() == before


def test_a_changed_digit_of_a_record_is_named(tmp_path):
    path = tmp_path / "runs.jsonl"
    append_record(path, line(seed=1, loss=3.0))
    append_record(path, line(seed=2, loss=3.0))
    text = path.read_text()
    assert text.count('"val_loss":3.0') == 2
    path.write_text('"val_loss":2.0'.join(text.rsplit('"val_loss":3.0', 1)))
    with pytest.raises(UserError, match=r"line 2 fails its checksum.*restore it from git"):
        read_records(path)


def test_a_file_system_without_flock_takes_records(tmp_path, monkeypatch):
    def refuse(file, operation):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", refuse)
    assert append_record(tmp_path / "runs.jsonl", line())
    assert len(read_records(tmp_path / "runs.jsonl")) == 1


def test_damaged_files_of_a_run_are_one_line(tmp_path):
    planned = PlannedRun(CELL, 0.01, 42, "confirm")

    def record(path):
        machine = {"gpu": None}
        return make_record(path, planned, "test", "hash", machine)

    path = make_run(tmp_path, "DEMO-02", 42, test=True)
    whole = record(path)
    assert whole["test_documents"]["tokens"] and whole["test_loss"]
    assert whole["val_documents"] is None
    on_val = make_record(make_run(tmp_path, "DEMO-02", 43), planned, "test", "hash", {})
    assert on_val["val_documents"]["tokens"] and on_val["test_documents"] is None
    for name in ("documents.npz", "metrics.jsonl", "summary.json", "config.yaml"):
        data = (path / name).read_bytes()
        (path / name).write_bytes(b"null\n" + data[: len(data) // 2])
        with pytest.raises(UserError, match=name):
            record(path)
        (path / name).write_bytes(data)
    with open(path / "metrics.jsonl", "a") as file:
        file.write('{"event": "eval", "st')  # torn by a crash
    assert record(path)["logit_std"] == whole["logit_std"]
    (path / "summary.json").unlink()
    for status in ("{", "null", "[" * 40_000, '{"state": "stopped"}', '{"state": 1}'):
        (path / "status.json").write_text(status)
        with pytest.raises(UserError) as error:
            record(path)
        assert "\n" not in str(error.value)
    (path / "status.json").write_text('{"state": "failed", "error": "loss is nan; lower the rate"}')
    for broken in (None, "{", '{"step": 3}'):
        if broken:
            (path / "bad_step.json").write_text(broken)
        with pytest.raises(UserError, match=r"bad_step\.json"):
            record(path)
    (path / "bad_step.json").write_text('{"step": 3, "reason": "loss is nan"}')
    assert (record(path)["status"], record(path)["error"]) == ("diverged", "loss is nan")


def test_a_record_of_another_study_or_plan_is_refused():
    ours = factory.make_record(PLAN, CELL, 0.01, 1, 3.0)
    check_records([ours], "test", PLAN)
    with pytest.raises(UserError, match="is of study 'test'"):
        check_records([ours], "other", PLAN)
    longer = factory.make_plan(set={"train.max_steps": 30})
    with pytest.raises(UserError, match=r"another plan: train\.max_steps was 20, is 30"):
        check_records([ours], "test", longer)


def test_a_key_that_is_newer_than_a_record_changes_nothing():
    old = line()
    del old["science"]["model.key_shift"]
    check_records([factory.Record.model_validate(old)], "test", PLAN)


def test_a_corpus_with_other_content_is_refused():
    record = factory.make_record(PLAN, CELL, 0.01, 1, 3.0)
    check_corpora([record], {"stories": record.data["splits"], "other": {}})
    with pytest.raises(UserError, match="its train split is not the one that recorded runs read"):
        check_corpora([record], {"stories": {"train": {"sha256": "00"}}})


@pytest.mark.parametrize("loss", [800.0, 6.94])
def test_a_loss_above_a_uniform_guess_counts_as_diverged(loss):
    """A rate with a loss of 800 used to end in OverflowError."""
    assert factory.make_record(PLAN, CELL, 0.01, 1, loss).loss("val") is None
    assert factory.make_record(PLAN, CELL, 0.01, 1, 6.9).loss("val") == 6.9
