import io
import json
import os
import time
import zipfile
from pathlib import Path

import numpy as np
import pytest

from oelm_lib import runs
from oelm_lib.errors import UserError
from oelm_lib.runs.documents import read_documents
from oelm_lib.runs.lock import RunLock
from oelm_lib.runs.metrics import AppendFile
from oelm_lib.runs.names import seed_of
from oelm_lib.runs.process import this_process
from oelm_lib.runs.reading import known_status

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


def test_a_run_folder_that_fresh_renamed_has_its_seed():
    assert seed_of(Path("DEMO-01_baseline/seed7.20240131-120000-000001")) == 7


def test_a_last_row_without_its_newline_counts(tmp_path):
    (tmp_path / "metrics.jsonl").write_text(
        "\n".join(json.dumps(ROW | {"step": n}) for n in (1, 2))
    )
    assert runs.read_metrics(tmp_path)["step"].tolist() == [1, 2]


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
        "null",
        " null",
        "\ufeffnull",
        "true",
        "",
        '{"event": "train", "step": 1}\rnull',
        '{"event": "train", "step": 1} {"event": "train", "step": 2}',
        '{"event": null, "step": 1}',
        "[" * 40_000,
    ],
)
def test_a_broken_line_in_the_middle_is_named(tmp_path, bad):
    (tmp_path / "metrics.jsonl").write_text(f"{json.dumps(ROW)}\n{bad}\n{json.dumps(ROW)}\n")
    with pytest.raises(UserError, match="line 2 is not a metrics row; delete that line"):
        runs.read_metrics(tmp_path)


def test_status_is_truthful_about_a_writer_that_is_gone(tmp_path):
    assert runs.state(tmp_path) == "empty"
    (tmp_path / "status.json").write_text('{"step": 3}')
    assert runs.state(tmp_path) == "empty"

    def status(**fields):
        record = this_process() | {"state": "running", "heartbeat": time.time()} | fields
        (tmp_path / "status.json").write_text(json.dumps(record))
        return runs.state(tmp_path)

    lock = RunLock(tmp_path)
    lock.acquire()
    assert status() == "running"
    assert status(heartbeat=0.0, host="another") == "running"  # the lock decides
    assert status(pid=1) == "dead"  # this process has opened the run and does not train it
    (tmp_path / "lock.json").write_text("{}")
    assert status(pid=1) == "running"
    lock.release()
    (tmp_path / "lock.json").unlink()
    assert status() == "dead"
    assert status(state="done") == "done"
    (tmp_path / "lock.json").write_text('{"boot": "elsewhere"}')
    assert status() == "running"
    assert status(heartbeat=time.time() - 1000) == "dead"
    assert status(heartbeat=time.time() + 1000) == "dead"  # not alive for as long as a clock says
    assert status(heartbeat=None) == "dead"


def test_broken_files_are_one_line(tmp_path):
    with pytest.raises(UserError, match=r"no config\.yaml"):
        runs.read_config(tmp_path)
    for content in ("a: [", "", "[]", "format: true", "[" * 40_000, "format: 1\nseed: true"):
        (tmp_path / "config.yaml").write_text(content)
        with pytest.raises(UserError, match="; restore it, or delete it: the same command then"):
            runs.read_config(tmp_path)
    (tmp_path / "config.yaml").write_text("format: 99")
    with pytest.raises(UserError, match="format 99; this version reads 1; update the workbook"):
        runs.read_config(tmp_path)
    (tmp_path / "status.json").write_text("{")
    with pytest.raises(UserError, match="not readable as JSON"):
        runs.read_status(tmp_path)
    assert known_status(tmp_path) == known_status(tmp_path / "missing") == {}
    (tmp_path / "status.json").write_text('{"state": "done"}')
    assert known_status(tmp_path)["state"] == "done"


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


def test_a_missing_or_mistyped_key_of_a_record_is_named(tmp_path):
    files = {
        "summary.json": (
            runs.read_summary,
            {"steps": 5, "best_val_loss": None, "final_val_loss": 1},
        ),
        "status.json": (runs.read_status, {"state": "running", "step": 5, "evals": []}),
    }
    for name, (read, good) in files.items():
        (tmp_path / name).write_text(json.dumps(good))
        assert read(tmp_path).items() >= good.items()
        for key in good:
            (tmp_path / name).write_text(json.dumps(good | {key: True}))
            with pytest.raises(UserError, match=rf"{name}: {key} is missing or broken; delete it:"):
                read(tmp_path)
    (tmp_path / "summary.json").write_text('{"steps": 5, "best_val_loss": 1.0}')
    with pytest.raises(UserError, match="final_val_loss is missing"):
        runs.read_summary(tmp_path)


@pytest.mark.parametrize("key", ["step", "max_steps", "memory_bytes", "tokens_per_s"])
def test_a_number_that_no_run_reaches_is_damage(tmp_path, key):
    """A status of 10**400 bytes ended `oelm status` for all runs of the folder."""
    record = {"state": "running", key: 10**400}
    (tmp_path / "status.json").write_text(json.dumps(record))
    with pytest.raises(UserError, match=f"{key} is missing or broken"):
        runs.read_status(tmp_path)
    (tmp_path / "status.json").write_text(json.dumps({"state": "done", "evals": [[1, 10**400]]}))
    assert runs.read_status(tmp_path)["evals"] == []


def test_documents_are_one_loss_and_one_count_each(tmp_path):
    path = tmp_path / "documents.npz"
    losses, counts = np.ones(2), np.array([1, 2])
    for nats, tokens in (
        (np.array(["a", "b"]), counts),
        (np.array(1.0), np.array(2)),
        (np.ones((2, 2)), np.ones((2, 2), int)),
        (np.array([True, False]), counts),
        (losses, -counts),
        (losses, losses),
    ):
        np.savez(path, nats=nats, tokens=tokens)
        with pytest.raises(UserError, match="is damaged"):
            read_documents(tmp_path)
        np.savez(path, nats=losses, tokens=counts, test_nats=nats, test_tokens=tokens)
        with pytest.raises(UserError, match="is damaged"):
            read_documents(tmp_path)
    header = io.BytesIO()
    claim = {"descr": "<f8", "fortran_order": False, "shape": (10**13,)}  # 73 TiB
    np.lib.format.write_array_header_1_0(header, claim)
    with zipfile.ZipFile(path, "w") as archive:
        for name in ("nats.npy", "tokens.npy"):
            archive.writestr(name, header.getvalue())
    with pytest.raises(UserError, match="is damaged"):
        read_documents(tmp_path)


@pytest.mark.parametrize(
    "eta",
    [
        *(None, [], [1.0], [1.0, None], ["a", "b"], [1, 2, 3], [True, 1]),
        *([1e308, 1e308], [-1e30, 5], [5, 1], [0, 10**400]),
    ],
)
def test_an_eta_that_is_no_range_is_none(tmp_path, eta):
    (tmp_path / "status.json").write_text(json.dumps({"state": "running", "eta_seconds": eta}))
    assert runs.read_status(tmp_path)["eta_seconds"] is None
    (tmp_path / "status.json").write_text('{"state": "running", "eta_seconds": [1.5, 2]}')
    assert runs.read_status(tmp_path)["eta_seconds"] == [1.5, 2]


@pytest.mark.parametrize(
    ("name", "read"),
    [
        ("config.yaml", runs.read_config),
        ("status.json", runs.read_status),
        ("summary.json", runs.read_summary),
        ("timing_stats.json", runs.read_timing),
        ("metrics.jsonl", runs.read_metrics),
        ("documents.npz", read_documents),
    ],
)
def test_a_record_that_is_a_link_a_folder_or_a_pipe_is_refused(tmp_path, name, read):
    outside = tmp_path / "outside"
    outside.write_text("{}")
    for make, kind in (
        (lambda path: path.symlink_to(outside), "link"),
        (lambda path: path.symlink_to("missing"), "link"),
        (Path.mkdir, "folder"),
        (os.mkfifo, "pipe"),
    ):
        folder = tmp_path / kind / str(len(list(tmp_path.rglob("*"))))
        folder.mkdir(parents=True)
        make(folder / name)
        with pytest.raises(UserError, match=f"{name}: is a {kind}, and the record of a run is"):
            read(folder)


def test_a_file_that_grows_does_not_follow_a_link_out_of_the_folder(tmp_path):
    outside = tmp_path / "outside"
    outside.write_text("precious")
    (tmp_path / "rows").symlink_to(outside)
    with pytest.raises(OSError, match="symbolic link"):
        AppendFile(tmp_path / "rows", 0, lambda: None)
    assert outside.read_text() == "precious"


def test_damaged_documents_are_named_with_what_to_do(tmp_path):
    path = tmp_path / "documents.npz"
    with pytest.raises(UserError, match=r"is missing; delete it and summary\.json"):
        read_documents(tmp_path)
    np.savez(path, nats=np.arange(50.0), tokens=np.arange(50))
    good = path.read_bytes()
    assert read_documents(tmp_path)["nats"][49] == 49.0
    for content in (b"", good[:-30], good[: len(good) // 2], b"PK" + good):
        path.write_bytes(content)
        with pytest.raises(UserError, match="is damaged"):
            read_documents(tmp_path)
    start = good.index(np.arange(50.0).tobytes())
    for place in range(start, start + 400, 7):
        path.write_bytes(good[:place] + bytes([good[place] ^ 1]) + good[place + 1 :])
        with pytest.raises(UserError, match="is damaged"):
            read_documents(tmp_path)
    np.savez(path, nats=np.arange(50.0), tokens=np.arange(49))
    with pytest.raises(UserError, match="is damaged"):
        read_documents(tmp_path)


def test_only_folders_with_a_plain_seed_are_runs(tmp_path):
    for name in ("seed0", "seed7", "seed07", "seed²", "seed٣", "seed", "seed-1", "seed1e3"):
        (tmp_path / "GPT-01_a" / name).mkdir(parents=True)
    (tmp_path / "GPT-01_a" / "seed8").touch()
    assert [path.name for path in runs.find_runs(tmp_path)] == ["seed0", "seed7"]
