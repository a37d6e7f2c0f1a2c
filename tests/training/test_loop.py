import dataclasses
import json
import math
import os
import signal

import numpy as np
import pytest
import torch

from oelm_lib import runs, training
from oelm_lib.errors import UserError
from oelm_lib.training import checkpoint, loop, session
from oelm_lib.training.precision import Precision
from oelm_lib.training.session import Session
from oelm_lib.training.trial import replay

WALL = {"seconds", "tokens_per_s", "eval_seconds", "wall_seconds", "mean_step_seconds", "finished"}


def train(run):
    return training.train(run.config, run)


def science(rows):
    """Rows without the fields that a clock decides."""
    return [{key: value for key, value in row.items() if key not in WALL} for row in rows]


def rows_of(run):
    return [json.loads(line) for line in (run.path / "metrics.jsonl").read_text().splitlines()]


def stop_at(monkeypatch, *steps):
    """Ask for a stop when the loop has done these steps, once each."""
    left = list(steps)

    def stopping(session):
        if left and session.step == left[0]:
            left.pop(0)
            return True
        return False

    monkeypatch.setattr(Session, "stopping", stopping)


def test_a_run_leaves_a_complete_record(tiny_run):
    run = tiny_run()
    summary = train(run)
    for name in (
        "config.yaml",
        "training.log",
        "metrics.jsonl",
        "status.json",
        "best.pt",
        "latest.pt",
        "documents.npz",
    ):
        assert (run.path / name).is_file(), name
    assert not (run.path / "lock.json").exists()
    rows = rows_of(run)
    assert [row["step"] for row in rows if row["event"] == "train"] == [10, 20, 24]
    assert [row["step"] for row in rows if row["event"] == "eval"] == [6, 12, 18, 24]
    assert rows[-1]["tokens"] == 24 * 4 * 16
    assert rows[0]["perplexity"] == pytest.approx(math.exp(rows[0]["loss"]))
    status = runs.read_status(run)
    assert (status["state"], status["step"], status["error"]) == ("done", 24, None)
    assert [step for step, _ in status["evals"]] == [6, 12, 18, 24]
    values = summary.values
    assert values["best_val_loss"] is not None
    assert values["parameters"]["frozen"] == 2 * 2 * 16 * 16
    proof = values["frozen"][0]
    assert (proof["from_step"], proof["to_step"], proof["tensors"]) == (0, 24, 4)
    assert proof["sha256_start"] == proof["sha256_end"]
    timing = runs.read_timing(run)
    assert timing["model_type"] == "oelm_v2"
    assert timing["init_method"] == "orthogonal"
    assert timing["num_steps_measured"] == 24
    assert sum(timing["budget"].values()) == pytest.approx(timing["total_wall_time"], abs=0.05)
    assert "equal" in repr(summary)
    assert "[Step 6] Validation - Loss: " in (run.path / "training.log").read_text()


def test_document_losses_add_up_to_the_whole_split(tiny_run):
    run = tiny_run()
    values = train(run).values
    documents = np.load(run.path / "documents.npz")
    tokens = run.corpus.tokens("val")
    assert documents["tokens"].sum() == len(tokens) - 1
    assert documents["nats"].sum() / documents["tokens"].sum() == pytest.approx(
        values["final_val_loss"], rel=1e-9
    )
    assert len(documents["nats"]) == run.corpus.manifest["splits"]["val"]["documents"]
    split = run.corpus.manifest["splits"]["val"]
    expected = (
        documents["nats"].sum()
        * split["tokens"]
        / (split["tokens"] - 1)
        / split["bytes"]
        / math.log(2)
    )
    assert values["final_bits_per_byte"] == pytest.approx(expected)


def test_the_same_seed_gives_the_same_bytes_and_another_does_not(tiny_run):
    first, second, other = tiny_run(folder="a"), tiny_run(folder="b"), tiny_run(folder="a", seed=2)
    for run in (first, second, other):
        train(run)
    assert science(rows_of(first)) == science(rows_of(second))
    states = [checkpoint.load(run.path / "latest.pt")["model"] for run in (first, second, other)]
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])
    assert not torch.equal(states[0]["token_embedding.weight"], states[2]["token_embedding.weight"])


def test_arms_with_one_seed_see_the_same_batches(tiny_run):
    sessions = []
    for exp in ("DEMO-01", "DEMO-02", "DEMO-03"):
        with Session(tiny_run(exp)) as session:
            sessions.append(
                [session.batches(step)[0] for step in (0, 1, session.batches.epoch_steps + 1)]
            )
    for other in sessions[1:]:
        assert all(torch.equal(a, b) for a, b in zip(sessions[0], other, strict=True))


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
        assert train(run).values == {}
        assert runs.read_status(run)["state"] == "stopped"
        assert runs.read_status(run)["step"] == stop
    run = tiny_run(folder="b", **changes)
    train(run)
    assert science(rows_of(run)) == science(rows_of(undisturbed))
    assert science([runs.read_summary(run)]) == science([runs.read_summary(undisturbed)])
    first, second = (checkpoint.load(r.path / "latest.pt") for r in (run, undisturbed))
    for name, value in first["model"].items():
        assert torch.equal(value, second["model"][name])
    for index, moments in first["optimizer"]["state"].items():
        for name, value in moments.items():
            assert torch.equal(value, second["optimizer"]["state"][index][name])
    assert torch.equal(first["random"]["cpu"], second["random"]["cpu"])


def test_rows_after_the_checkpoint_are_cut_on_resume(tiny_run, monkeypatch):
    undisturbed = tiny_run(folder="a")
    train(undisturbed)
    run = tiny_run(folder="b")
    monkeypatch.setattr(loop, "_record", _crash_at(loop._record, 13))
    with pytest.raises(MemoryError):
        train(run)
    monkeypatch.undo()
    assert runs.read_status(run)["state"] == "failed"
    assert "MemoryError" in runs.read_status(run)["error"]
    assert [row["step"] for row in rows_of(run) if row["event"] == "eval"] == [6, 12]
    with open(run.path / "metrics.jsonl", "a") as file:
        file.write('{"event": "train", "step": 13, "lo')
    os.environ["OELM_DATA"] = str(run.corpus.path.parent.parent)
    train(runs.open_run(run.config, run.seed, run.path.parent.parent))
    assert science(rows_of(run)) == science(rows_of(undisturbed))


def _crash_at(function, step):
    def crashing(session, *args):
        if session.step == step:
            raise MemoryError("out of memory")
        return function(session, *args)

    return crashing


def test_a_finished_run_is_shown_not_trained(tiny_run, capsys):
    train(tiny_run())
    before = (tiny_run().path / "metrics.jsonl").read_bytes()
    summary = train(tiny_run())
    assert "is done" in capsys.readouterr().out
    assert summary.values["steps"] == 24
    assert (tiny_run().path / "metrics.jsonl").read_bytes() == before


def test_evaluation_disturbs_nothing(tiny_run):
    often, seldom = tiny_run(folder="a"), tiny_run(folder="b", train__eval_interval=24)
    train(often)
    train(seldom)
    first, second = (checkpoint.load(run.path / "latest.pt")["model"] for run in (often, seldom))
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_a_stop_file_and_a_signal_save_and_stop(tiny_run, monkeypatch):
    run = tiny_run()
    (run.path / "STOP").touch()
    train(run)
    assert runs.read_status(run)["state"] == "stopped"
    assert not (run.path / "STOP").exists()
    real = loop._record

    def record(session, *args):
        real(session, *args)
        if session.step == 9:
            os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(loop, "_record", record)
    before = signal.getsignal(signal.SIGTERM)
    train(tiny_run())
    assert (runs.read_status(run)["state"], runs.read_status(run)["step"]) == ("stopped", 9)
    assert signal.getsignal(signal.SIGTERM) == before


@pytest.mark.parametrize("where", ["loss", "gradient"])
def test_numbers_that_go_bad_stop_the_run_before_the_update(tiny_run, monkeypatch, where):
    run = tiny_run(machine__log_interval=2)
    real = loop.gradients

    def gradients(model, optimizer, precision, batch, clip):
        loss, norm = real(model, optimizer, precision, batch, clip)
        if optimizer.state and next(iter(optimizer.state.values()))["step"] == 6:
            weights.update({name: value.clone() for name, value in model.state_dict().items()})
            kept.append(model)
            return (loss * math.nan, norm) if where == "loss" else (loss, norm * math.inf)
        return loss, norm

    weights, kept = {}, []
    monkeypatch.setattr(loop, "gradients", gradients)
    with pytest.raises(
        UserError, match=r"step 7: loss is .*last finite loss .* at step 6; the run is kept in"
    ):
        train(run)
    assert all(torch.equal(value, kept[0].state_dict()[name]) for name, value in weights.items())
    assert runs.read_status(run)["state"] == "failed"
    assert "step 7: loss is" in runs.read_status(run)["error"]
    assert len(json.loads((run.path / "bad_step.json").read_text())["windows"]) == 4


def test_each_interval_of_a_freeze_has_its_proof(tiny_run):
    run = tiny_run(**{"model.freeze_from": 7, "model.freeze_until": 13})
    train(run)
    before, frozen, after = runs.read_summary(run)["frozen"]
    assert [(part["from_step"], part["to_step"]) for part in (before, frozen, after)] == [
        (0, 7),
        (7, 13),
        (13, 24),
    ]
    assert [part["tensors"] for part in (before, frozen, after)] == [0, 4, 0]
    assert (
        frozen["sha256_start"]
        == frozen["sha256_end"]
        != before["sha256_start"]
        == after["sha256_end"]
    )
    assert runs.read_summary(run)["parameters"]["frozen"] == 0


def test_frozen_weights_that_move_are_an_error(tiny_run, monkeypatch):
    real = loop.update

    def update(optimizer, precision, rate):
        real(optimizer, precision, rate)
        sessions[0].model.blocks[0].attention.q_proj.weight.data.add_(1e-3)

    sessions = []
    enter = Session.__enter__
    monkeypatch.setattr(Session, "__enter__", lambda self: sessions.append(self) or enter(self))
    monkeypatch.setattr(loop, "update", update)
    with pytest.raises(RuntimeError, match="frozen tensors changed between steps 0 and 24"):
        train(tiny_run())


def test_a_warm_up_longer_than_the_run_is_a_warning(tiny_run, capsys):
    train(tiny_run(optim__warmup_steps=100))
    assert "optim.warmup_steps = 100 is longer than train.max_steps = 24" in capsys.readouterr().out


def test_fp16_on_a_cpu_means_fp32_and_says_so(tiny_run, capsys):
    run = tiny_run(train__precision="fp16")
    train(run)
    assert "on a CPU that means fp32" in capsys.readouterr().out
    assert runs.read_config(run)["resolved"]["precision"] == "fp32"


def test_bf16_trains_on_a_cpu(tiny_run):
    bf16, fp32 = tiny_run(train__precision="bf16", folder="a"), tiny_run(folder="b")
    losses = [train(run).values["final_val_loss"] for run in (bf16, fp32)]
    assert losses[0] == pytest.approx(losses[1], rel=0.02)
    assert losses[0] != losses[1]


@pytest.mark.parametrize("name", ["fp16", "bf16"])
def test_half_precision_continues_bit_equal_with_its_loss_scale(tiny_run, monkeypatch, name):
    monkeypatch.setattr(
        session, "resolve_precision", lambda name, device: (Precision(name, device), None)
    )
    undisturbed = tiny_run(folder="a", train__precision=name)
    train(undisturbed)
    stop_at(monkeypatch, 7, 13)
    for _ in range(3):
        run = tiny_run(folder="b", train__precision=name)
        train(run)
    assert science(rows_of(run)) == science(rows_of(undisturbed))
    first, second = (checkpoint.load(r.path / "latest.pt") for r in (run, undisturbed))
    assert first["scaler"] == second["scaler"]
    assert bool(first["scaler"]) == (name == "fp16")
    assert all(torch.equal(value, second["model"][key]) for key, value in first["model"].items())


def test_a_run_begun_in_fp32_goes_on_in_fp16(tiny_run, monkeypatch):
    stop_at(monkeypatch, 7)
    train(tiny_run(train__precision="fp16"))  # on a CPU that means fp32
    monkeypatch.setattr(
        session, "resolve_precision", lambda name, device: (Precision(name, device), None)
    )
    run = tiny_run(train__precision="fp16")
    train(run)
    assert runs.read_status(run)["state"] == "done"
    assert any("precision was fp32, is fp16" in text for text in runs.read_status(run)["warnings"])


def test_a_window_shorter_than_the_prompt_of_samples_trains(tiny_run):
    run = tiny_run(model__max_seq_len=4)
    assert train(run).values["steps"] == 24


def test_gradients_that_are_never_numbers_stop_an_fp16_run(tiny_run, monkeypatch):
    monkeypatch.setattr(
        session, "resolve_precision", lambda name, device: (Precision(name, device), None)
    )
    enter = Session.__enter__

    def spoil(entered):
        entered.model.blocks[0].fc_in.weight.register_hook(lambda gradient: gradient * math.nan)
        return entered

    monkeypatch.setattr(Session, "__enter__", lambda self: spoil(enter(self)))
    run = tiny_run(train__precision="fp16", train__max_steps=60)
    with pytest.raises(UserError, match=r"gradient norm nan at an fp16 loss scale that fell to"):
        train(run)
    assert runs.read_status(run)["state"] == "failed"


def test_numbers_found_bad_later_are_told_with_the_step_they_went_bad_at(tiny_run, monkeypatch):
    """As on a GPU, where asking at every step would cost a synchronisation."""
    run = tiny_run()
    with Session(run) as entered:
        guard = entered.guard
        with monkeypatch.context() as patch:
            patch.setattr(type(guard), "check", lambda self, steps: None)
            for step, loss in enumerate([1.0, 2.0, math.inf, 3.0]):
                guard.watch(entered.optimizer, step, torch.tensor(loss), torch.tensor(5.0 + step))
                assert entered.optimizer.found_inf.item() == (step >= 2)
        windows = entered.batches.window_numbers(2).tolist()
        with pytest.raises(UserError, match=r"step 3: loss is inf, gradient norm 7"):
            guard.check(4)
    assert json.loads((run.path / "bad_step.json").read_text())["windows"] == windows


def test_a_stop_in_the_final_evaluation_is_heard_and_nothing_is_lost(tiny_run, monkeypatch):
    undisturbed = tiny_run(folder="a")
    train(undisturbed)
    finish = loop._finish
    monkeypatch.setattr(
        loop, "_finish", lambda session: (session.run.path / "STOP").touch() or finish(session)
    )
    run = tiny_run(folder="b")
    assert train(run).values == {}
    assert not (run.path / "STOP").exists()
    assert (runs.read_status(run)["state"], runs.read_status(run)["step"]) == ("stopped", 24)
    monkeypatch.undo()
    monkeypatch.setenv("OELM_DATA", str(run.corpus.path.parents[1]))
    train(tiny_run(folder="b"))
    assert science(rows_of(run)) == science(rows_of(undisturbed))
    assert science([runs.read_summary(run)]) == science([runs.read_summary(undisturbed)])


def test_a_bad_step_is_replayed_from_the_checkpoint_and_nothing_is_written(tiny_run, monkeypatch):
    run = tiny_run()
    with pytest.raises(UserError, match="no step to replay"):
        replay(run.path)
    real = loop.gradients

    def gradients(model, optimizer, precision, batch, clip):
        loss, norm = real(model, optimizer, precision, batch, clip)
        losses.append(loss.item())
        return (loss * math.nan, norm) if len(losses) == 7 else (loss, norm)

    losses = []
    with monkeypatch.context() as patch:
        patch.setattr(loop, "gradients", gradients)
        with pytest.raises(
            UserError, match=f"look at the step: oelm replay {run.name}".replace("+", r"\+")
        ):
            train(run)
    before = {path.name: path.stat().st_mtime_ns for path in run.path.iterdir()}
    lines = replay(run.path).splitlines()
    assert lines[0] == f"step 7 again from step 5: loss {losses[6]:.6g}, then it was no number"
    assert any(line.endswith("blocks.0.attention.v_proj.weight") for line in lines)
    assert not any(line.endswith("blocks.0.attention.q_proj.weight") for line in lines)  # frozen
    assert {path.name: path.stat().st_mtime_ns for path in run.path.iterdir()} == before


def test_a_replayed_step_trains_what_the_run_did(tiny_run, monkeypatch):
    """freeze_from = 6: the bad step 7 is the first whose Q and K are frozen."""
    real, count = loop.gradients, []

    def gradients(*args):
        loss, norm = real(*args)
        count.append(1)
        return (loss * math.nan, norm) if len(count) == 7 else (loss, norm)

    run = tiny_run(model__freeze_from=6)
    with monkeypatch.context() as patch:
        patch.setattr(loop, "gradients", gradients)
        with pytest.raises(UserError, match="look at the step"):
            train(run)
    lines = replay(run.path).splitlines()
    assert any(line.endswith("v_proj.weight") for line in lines)
    assert not any(line.endswith("q_proj.weight") for line in lines)


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
            "frozen tensors are not those the run started with",
        ),
        ({"model": {}}, "lacks or breaks something"),
        ({"offsets": None, "time": None}, "lacks or breaks something"),
        ({"seed": 9}, "seed was 9, is 1"),
        ({"splits": {}}, "was prepared anew since, with other content"),
        (
            {"experiment": good["experiment"] | {"optim.learning_rate": 9.0}},
            "optim.learning_rate was 9.0, is 0.01",
        ),
    ]:
        checkpoint.save(path, good | changes)
        with pytest.raises(UserError, match=message):
            train(tiny_run())
        assert message in runs.read_status(run)["error"]
        assert not (run.path / "lock.json").exists()
    checkpoint.save(path, good)
    again = dataclasses.replace(run.corpus, manifest=run.corpus.manifest | {"created": "again"})
    moved = dataclasses.replace(run, corpus=again)
    assert train(moved).values["steps"] == 24


def test_a_start_that_fails_half_way_leaves_a_truthful_status_and_no_lock(tiny_run, monkeypatch):
    def no_memory(*args):
        raise MemoryError("out of memory")

    run = tiny_run()
    with monkeypatch.context() as patch:
        patch.setattr(session, "make_optimizer", no_memory)
        with pytest.raises(MemoryError):
            train(run)
    assert runs.read_status(run)["error"] == "MemoryError: out of memory"
    assert runs.state(run) == "failed"
    assert not (run.path / "lock.json").exists()
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
    assert train(tiny_run()).values["steps"] == 24


def test_going_on_with_other_threads_is_a_warning(tiny_run, monkeypatch, capsys):
    stop_at(monkeypatch, 3)
    run = tiny_run()
    train(run)
    saved = checkpoint.load(run.path / "latest.pt")
    checkpoint.save(run.path / "latest.pt", saved | {"machine": saved["machine"] | {"threads": 7}})
    train(tiny_run())
    assert "threads was 7, is 1" in capsys.readouterr().out
