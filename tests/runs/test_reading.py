import json
import time

import pytest

from oelm_lib import runs
from oelm_lib.errors import UserError
from oelm_lib.runs.lock import RunLock
from oelm_lib.runs.process import this_process

ROW = {"event": "train", "step": 10, "tokens": 100, "loss": 1.5, "perplexity": 4.5, "seconds": 1.0}


def test_a_torn_last_line_is_dropped_and_null_is_not_a_number(tmp_path):
    lines = [
        json.dumps(ROW),
        json.dumps(ROW | {"step": 20, "loss": None}),
        '{"event": "train", "st',
    ]
    (tmp_path / "metrics.jsonl").write_text("\n".join(lines))
    frame = runs.read_metrics(tmp_path)
    assert frame["step"].tolist() == [10, 20]
    assert frame["loss"].isna().tolist() == [False, True]
    assert frame["eval_seconds"].isna().all()


def test_no_metrics_is_an_empty_frame_with_the_same_columns(tmp_path):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "metrics.jsonl").write_text(json.dumps(ROW) + "\n")
    assert list(runs.read_metrics(tmp_path)) == list(runs.read_metrics(tmp_path / "full"))


@pytest.mark.parametrize(
    "bad",
    [
        "{",
        "[1]",
        '"text"',
        '{"event": "train"}',
        "\x00\x01",
        '{"event": "train", "step": 1, "loss": "x"}',
    ],
)
def test_a_broken_line_in_the_middle_is_named(tmp_path, bad):
    (tmp_path / "metrics.jsonl").write_text(f"{json.dumps(ROW)}\n{bad}\n{json.dumps(ROW)}\n")
    with pytest.raises(UserError, match="line 2 is not a metrics row; delete that line"):
        runs.read_metrics(tmp_path)


def test_status_is_truthful_about_a_writer_that_is_gone(tmp_path):
    assert runs.state(tmp_path) == "empty"

    def status(**fields):
        record = this_process() | {"state": "running", "heartbeat": time.time()} | fields
        (tmp_path / "status.json").write_text(json.dumps(record))
        return runs.state(tmp_path)

    lock = RunLock(tmp_path)
    lock.acquire()
    assert status() == "running"
    assert status(heartbeat=0.0, host="another", pid=1) == "running"  # the lock decides
    lock.release()
    assert status() == "dead"
    assert status(state="done") == "done"
    (tmp_path / "lock.json").write_text('{"boot": "elsewhere"}')
    assert status() == "running"
    assert status(heartbeat=time.time() - 1000) == "dead"
    assert status(heartbeat=None) == "dead"


def test_broken_files_are_one_line(tmp_path):
    with pytest.raises(UserError, match=r"no config\.yaml"):
        runs.read_config(tmp_path)
    for content in ("a: [", "[]", "format: 99"):
        (tmp_path / "config.yaml").write_text(content)
        with pytest.raises(UserError):
            runs.read_config(tmp_path)
    (tmp_path / "status.json").write_text("{")
    with pytest.raises(UserError, match="not readable as JSON"):
        runs.read_status(tmp_path)


def test_runs_are_found_by_id_or_glob(tmp_path):
    for name in (
        "GPT-01_a/seed42",
        "GPT-01_a/seed7",
        "GPT-02_b+abc/seed1",
        "DEMO-01_x/seed1",
        "GPT-01_a/seed1.old",
    ):
        (tmp_path / name).mkdir(parents=True)
    names = [f"{path.parent.name}/{path.name}" for path in runs.find_runs(tmp_path, "GPT-*")]
    assert names == ["GPT-01_a/seed7", "GPT-01_a/seed42", "GPT-02_b+abc/seed1"]
    assert len(runs.find_runs(tmp_path)) == 4
    assert len(runs.find_runs(tmp_path, ["DEMO-01", "GPT-02"])) == 2
    assert runs.find_runs(tmp_path / "missing") == []
