"""Runs that are stopped, killed or moved, and then continued."""

import dataclasses
import os

import pytest
import torch

from oelm_lib import runs
from oelm_lib.errors import UserError
from oelm_lib.training import checkpoint, loop, state
from tests.clocked import without_clock
from tests.training.helpers import rows_of, same_tensors, stop_at, take_literally, train

SCHEDULE = {
    "model.freeze_from": 7,
    "model.freeze_until": 13,
    "model.delta_rank": 2,
    "optim.groups": [{"match": "delta", "learning_rate": 3e-2, "warmup_steps": 2}],
}


@pytest.mark.parametrize(
    ("stops", "changes"),
    [
        ((1,), {}),
        ((6,), {}),
        ((7, 13), {}),
        ((5, 10, 23), {}),
        ((7, 12, 13, 20), SCHEDULE),
        ((8,), SCHEDULE),
    ],
)
def test_a_run_stopped_anywhere_and_continued_is_bit_equal(tiny_run, monkeypatch, stops, changes):
    undisturbed = tiny_run(folder="a", **changes)
    train(undisturbed)
    stop_at(monkeypatch, *stops)
    for stop in stops:
        run = tiny_run(folder="b", **changes)
        assert train(run) == {}
        assert runs.read_status(run)["state"] == "stopped"
        assert runs.read_status(run)["step"] == stop
    run = tiny_run(folder="b", **changes)
    train(run)
    assert without_clock(rows_of(run)) == without_clock(rows_of(undisturbed))
    summaries = [runs.read_summary(run), runs.read_summary(undisturbed)]
    assert without_clock(summaries[:1]) == without_clock(summaries[1:])
    first, second = (checkpoint.load(r.path / "latest.pt") for r in (run, undisturbed))
    assert same_tensors(first["model"], second["model"])
    for index, moments in first["optimizer"]["state"].items():
        assert same_tensors(moments, second["optimizer"]["state"][index])
    assert torch.equal(first["random"]["cpu"], second["random"]["cpu"])


@pytest.mark.parametrize("name", ["fp16", "bf16"])
def test_half_precision_continues_bit_equal_with_its_loss_scale(tiny_run, monkeypatch, name):
    take_literally(monkeypatch)
    undisturbed = tiny_run(folder="a", train__precision=name)
    train(undisturbed)
    stop_at(monkeypatch, 7, 13)
    for _ in range(3):
        run = tiny_run(folder="b", train__precision=name)
        train(run)
    assert without_clock(rows_of(run)) == without_clock(rows_of(undisturbed))
    first, second = (checkpoint.load(r.path / "latest.pt") for r in (run, undisturbed))
    assert first["scaler"] == second["scaler"]
    assert bool(first["scaler"]) == (name == "fp16")
    assert same_tensors(first["model"], second["model"])


def test_a_run_that_began_in_fp32_continues_in_fp16(tiny_run, monkeypatch):
    stop_at(monkeypatch, 7)
    train(tiny_run(train__precision="fp16"))  # on a CPU that means fp32
    take_literally(monkeypatch)
    run = tiny_run(train__precision="fp16")
    train(run)
    assert runs.read_status(run)["state"] == "done"
    assert any("precision was fp32, is fp16" in text for text in runs.read_status(run)["warnings"])


def test_rows_after_the_checkpoint_are_cut(tiny_run, monkeypatch):
    undisturbed = tiny_run(folder="a")
    train(undisturbed)
    run = tiny_run(folder="b", machine__log_interval=1)
    log = loop.log

    def crash_at_13(session, *args):
        if session.state.step == 13:
            raise MemoryError("out of memory")
        log(session, *args)

    with monkeypatch.context() as patch:
        patch.setattr(loop, "log", crash_at_13)
        with pytest.raises(MemoryError):
            train(run)
    status = runs.read_status(run)
    assert (status["state"], status["step"]) == ("failed", 13)
    assert "MemoryError" in status["error"]
    assert "FAILED at step 13: MemoryError" in (run.path / "training.log").read_text()
    assert [row["step"] for row in rows_of(run) if row["event"] == "eval"] == [6, 12]
    with open(run.path / "metrics.jsonl", "a") as file:
        file.write('{"event": "train", "step": 13, "lo')
    train(tiny_run(folder="b"))
    rows = [row for row in rows_of(run) if row["event"] == "eval"]
    expected = [row for row in rows_of(undisturbed) if row["event"] == "eval"]
    assert without_clock(rows) == without_clock(expected)
    steps = [row["step"] for row in rows_of(run) if row["event"] == "train"]
    assert steps == [*range(1, 11), 20, 24]


def test_a_checkpoint_of_something_else_is_refused_in_one_line(tiny_run, monkeypatch):
    stop_at(monkeypatch, 3)
    run = tiny_run()
    train(run)
    path = run.path / "latest.pt"
    good = checkpoint.load(path)
    key = "blocks.0.attention.q_proj.weight"
    for changes, message in [
        (
            {"model": good["model"] | {key: good["model"][key] + 1}},
            "frozen tensors are not those with which the run started",
        ),
        ({"model": {}}, "something is missing or wrong"),
        ({"record": {"offsets": None, "time": None}}, "something is missing or wrong"),
        ({"frozen": []}, "something is missing or wrong"),
        ({"seed": 9}, "seed was 9, is 1"),
        ({"splits": {}}, "with other content"),
        (
            {"experiment": good["experiment"] | {"optim.learning_rate": 9.0}},
            "optim.learning_rate was 9.0, is 0.01",
        ),
    ]:
        checkpoint.save(path, good | changes)
        with pytest.raises(UserError, match=message) as raised:
            train(tiny_run())
        assert "\n" not in str(raised.value)
        status = runs.read_status(run)
        assert message in status["error"]
        assert (status["state"], status["step"]) == ("failed", 3)
        assert not (run.path / "lock.json").exists()
    checkpoint.save(path, good)
    prepared_again = dataclasses.replace(
        run.corpus, manifest=run.corpus.manifest | {"created": "again"}
    )
    assert train(dataclasses.replace(run, corpus=prepared_again))["steps"] == 24


def test_a_message_names_the_checkpoint_that_was_read(tiny_run, monkeypatch):
    stop_at(monkeypatch, 3)
    run = tiny_run()
    train(run)
    good = checkpoint.load(run.path / "latest.pt")
    (run.path / "latest.pt").write_bytes(b"torn")
    for changes in ({"seed": 9}, {"record": {}}):
        checkpoint.save(run.path / "latest.prev.pt", good | changes)
        with pytest.raises(UserError, match=r"latest\.prev\.pt: (made with|something is)"):
            train(tiny_run())


def test_a_checkpoint_of_an_older_format_is_refused_in_one_line(tiny_run, monkeypatch):
    stop_at(monkeypatch, 3)
    run = tiny_run()
    train(run)
    monkeypatch.setattr(checkpoint, "FORMAT", 3)
    with pytest.raises(UserError, match=r"checkpoint format 2; this version reads 3; .*--fresh"):
        train(tiny_run())


def test_a_continuation_with_other_threads_is_a_warning(tiny_run, monkeypatch, capsys):
    stop_at(monkeypatch, 3)
    run = tiny_run()
    train(run)
    train(tiny_run(machine__threads=2))
    assert "threads was 1, is 2" in capsys.readouterr().out


def test_time_and_spent_phases_of_earlier_sessions_count(tiny_run, monkeypatch):
    stop_at(monkeypatch, 12)
    run = tiny_run()
    train(run)
    saved = checkpoint.load(run.path / "latest.pt")
    time = saved["record"]["time"]
    time["elapsed"] += 1000.0
    time["spent"]["step"] += 600.0
    checkpoint.save(run.path / "latest.pt", saved)
    summary = train(tiny_run())
    assert 1000 < summary["wall_seconds"] < 1100
    assert 600 < runs.read_timing(run)["budget"]["step"] < 700
    assert rows_of(run)[-1]["seconds"] > 1000


def test_a_start_that_fails_half_way_leaves_a_truthful_status_and_no_lock(tiny_run, monkeypatch):
    def no_memory(*args):
        raise MemoryError("out of memory")

    run = tiny_run()
    with monkeypatch.context() as patch:
        patch.setattr(state, "make_optimizer", no_memory)
        with pytest.raises(MemoryError):
            train(run)
    assert runs.read_status(run)["error"] == "MemoryError: out of memory"
    assert runs.state(run) == "failed"
    assert not (run.path / "lock.json").exists()
    assert train(tiny_run())["steps"] == 24


def test_a_gpu_that_fails_during_a_continuation_is_not_a_broken_checkpoint(tiny_run, monkeypatch):
    def fails(*args):
        raise torch.AcceleratorError("CUDA error: illegal access\nSearch for ...")

    stop_at(monkeypatch, 6)
    run = tiny_run()
    train(run)
    with monkeypatch.context() as patch:
        patch.setattr(state.GPT, "load_state_dict", fails)
        with pytest.raises(torch.AcceleratorError):
            train(tiny_run())
    assert runs.read_status(run)["error"] == "AcceleratorError: CUDA error: illegal access"
    assert train(tiny_run())["steps"] == 24


def test_the_status_of_a_continuation_begins_at_its_checkpoint(tiny_run, monkeypatch):
    make, steps = state.make_optimizer, []

    def noting_the_step(*args):
        steps.append(runs.read_status(tiny_run())["step"])
        return make(*args)

    stop_at(monkeypatch, 6)
    train(tiny_run())
    monkeypatch.setattr(state, "make_optimizer", noting_the_step)
    train(tiny_run())
    assert steps == [6]


def test_leftovers_of_a_killed_process_are_removed(tiny_run):
    run = tiny_run()
    leftover = run.path / f".latest.pt.{os.getpid() + 1}.tmp"
    leftover.write_bytes(b"torn")
    export = run.path / ".safetensors.7.tmp"
    export.mkdir()
    (export / "model.safetensors").write_bytes(b"torn")
    train(run)
    assert not leftover.exists() and not export.exists()


class Killed(BaseException):
    """The process ends here."""


def test_a_kill_inside_the_first_save_after_a_fallback_leaves_a_whole_checkpoint(
    tiny_run, monkeypatch
):
    stop_at(monkeypatch, 13)
    train(tiny_run())
    (tiny_run().path / "latest.pt").write_bytes(b"torn")
    replace = os.replace

    def die_before_the_last_rename(source, target):
        if target.name == "latest.pt":
            raise Killed
        replace(source, target)

    monkeypatch.setattr(os, "replace", die_before_the_last_rename)
    with pytest.raises(Killed):
        train(tiny_run())
    monkeypatch.undo()
    latest = checkpoint.load_latest(tiny_run().path)
    assert (latest.path.name, latest.state["step"]) == ("latest.prev.pt", 10)


@pytest.mark.parametrize(
    ("name", "content", "message", "read"),
    [
        ("config.yaml", None, r"finished run .*, or delete summary.json: ", runs.read_config),
        ("config.yaml", b"", r"is damaged; .*delete it and summary.json: ", runs.read_config),
        ("config.yaml", b"a: [", r"YAML; .*delete it and summary.json: ", runs.read_config),
        ("timing_stats.json", b"{", r"JSON; .*delete it and summary.json: ", runs.read_timing),
        ("summary.json", b"{}", r"is missing or broken; delete it: ", runs.read_summary),
    ],
)
def test_the_remedy_for_a_file_of_a_finished_run_makes_it_anew(
    tiny_run, name, content, message, read
):
    run = tiny_run(train__max_steps=6)
    summary, path = train(run), run.path / name
    path.unlink()
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UserError, match=f"{message}the same command then scores the last"):
        read(run)
    path.unlink(missing_ok=True)
    (run.path / "summary.json").unlink(missing_ok=True)
    rows = rows_of(run)
    again = train(tiny_run(train__max_steps=6))
    assert read(run) and rows_of(run) == rows
    assert without_clock([again]) == without_clock([summary])
