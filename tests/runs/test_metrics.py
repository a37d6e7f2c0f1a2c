"""Append-only files of a run: what a crash leaves, what a resume keeps."""

import json
import math
import os
import threading

import pytest

from oelm_lib import runs
from oelm_lib.runs.metrics import AppendFile, Recorder

TRAIN = {"tokens": 100, "learning_rate": 1e-3, "grad_norm": 0.5, "tokens_per_s": 10.0, "seconds": 1}


def unlocked():
    """The check of a folder that no other process writes."""


@pytest.mark.parametrize(
    ("before", "length", "after", "is_short"),
    [
        ("a\nb\nc\n", 4, "a\nb\n", False),
        ("a\nb\nto", 4, "a\nb\n", False),
        ("a\nb\n", 4, "a\nb\n", False),
        ("a\nto", 4, "a\n", True),
        ("torn", 4, "", True),
        ("", 4, "", True),
        ("a\nb\n", 0, "", False),
        ("", 0, "", False),
    ],
)
def test_a_resume_keeps_whole_lines_up_to_the_checkpoint(tmp_path, before, length, after, is_short):
    path = tmp_path / "rows"
    path.write_text(before)
    file = AppendFile(path, length, unlocked)
    assert (path.read_text(), file.is_short) == (after, is_short)
    file.write("new")
    assert path.read_text() == after + "new\n"  # not held back in a buffer
    assert file.sync() == len(after) + 4
    file.close()


def test_sync_brings_the_lines_to_the_disk(tmp_path, monkeypatch):
    synced, own = [], threading.get_ident()

    def record_fsync(file):
        if threading.get_ident() == own:  # the beat of a run that another test left open syncs too
            synced.append(os.fstat(file).st_size)

    monkeypatch.setattr(os, "fsync", record_fsync)
    file = AppendFile(tmp_path / "rows", 0, unlocked)
    file.write("line")
    assert file.sync() == 5
    assert synced == [5]


def test_the_check_is_asked_before_the_file_is_touched(tmp_path):
    path = tmp_path / "rows"
    path.write_text("kept")
    asked = []

    def check():
        asked.append(path.read_text())
        if len(asked) != 2:
            raise RuntimeError("not mine")

    with pytest.raises(RuntimeError):
        AppendFile(path, 0, check)
    assert path.read_text() == "kept"
    file = AppendFile(path, 0, check)
    with pytest.raises(RuntimeError):
        file.write("lost")
    assert asked == ["kept", "kept", ""]
    assert path.read_text() == ""


def test_a_recorder_writes_rows_and_lines_and_resumes_from_its_offsets(tmp_path):
    recorder = Recorder(tmp_path, {}, unlocked)
    recorder.train(10, 2.0, **TRAIN)
    recorder.evaluation(10, 1.0, True, tokens=100)
    offsets = recorder.offsets()
    assert offsets == {path.name: path.stat().st_size for path in tmp_path.iterdir()}
    recorder.train(20, math.nan, **TRAIN)
    recorder.evaluation(20, 800.0, False, tokens=200)
    recorder.sample(20, "Once upon é")
    recorder.note("a note")
    recorder.close()
    rows = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [(row["event"], row["step"], row["loss"]) for row in rows] == [
        ("train", 10, 2.0),
        ("eval", 10, 1.0),
        ("train", 20, None),
        ("eval", 20, 800.0),
    ]
    assert rows[0]["perplexity"] == pytest.approx(math.exp(2))
    assert rows[0].items() >= TRAIN.items()
    assert rows[3]["perplexity"] is None
    assert (tmp_path / "training.log").read_text().splitlines() == [
        "[Step 10] loss 2.0000  lr 1.00e-03  grad_norm 0.500  10 tokens/s",
        "[Step 10] Validation - Loss: 1.0000, PPL: 2.72  (new best)",
        "[Step 20] loss nan  lr 1.00e-03  grad_norm 0.500  10 tokens/s",
        "[Step 20] Validation - Loss: 800.0000, PPL: inf",
        '[Step 20] Sample - "Once upon é"',
        "a note",
    ]
    again = Recorder(tmp_path, offsets, unlocked)
    assert again.missing_lines() is None
    again.close()
    assert runs.read_metrics(tmp_path)["step"].tolist() == [10, 10]
    (tmp_path / "metrics.jsonl").write_text("")
    (tmp_path / "training.log").write_text("[Step")
    assert Recorder(tmp_path, offsets, unlocked).missing_lines() == (
        "metrics.jsonl and training.log: shorter than at the checkpoint, the lines are lost"
    )
