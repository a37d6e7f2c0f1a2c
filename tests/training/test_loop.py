import math
import re
import time

import numpy as np
import pytest
import torch

from oelm_lib import runs
from oelm_lib.training import checkpoint, loop, optim, time_trial
from oelm_lib.training.progress import SLACK, UNMEASURED
from oelm_lib.training.record import evaluate, save
from oelm_lib.training.session import open_session
from oelm_lib.training.state import TrainingState
from oelm_lib.training.time_trial import slow_warning
from tests.clocked import without_clock
from tests.training.helpers import keep_states, record_calls, rows_of, same_tensors, train


def test_a_run_leaves_a_complete_record(tiny_run):
    run = tiny_run()
    values = train(run)
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
    last = [row for row in rows if row["event"] == "train"][-1]
    assert status["train_loss"] == last["loss"]
    for key in ("tokens", "learning_rate", "tokens_per_s"):
        assert status[key] == last[key]
    assert status["steps_per_s"] * 4 * 16 == pytest.approx(last["tokens_per_s"])
    assert status["memory_bytes"] > 0
    assert values["best_val_loss"] is not None
    assert values["parameters"]["frozen"] == 2 * 2 * 16 * 16
    proof = values["frozen"][0]
    assert (proof["from_step"], proof["to_step"], proof["tensors"]) == (0, 24, 4)
    assert proof["sha256_start"] == proof["sha256_end"]
    timing = runs.read_timing(run)
    assert timing["model_type"] == "oelm_v2"
    assert timing["init_method"] == "orthogonal"
    assert timing["num_steps_measured"] == 24
    assert sum(timing["budget"].values()) == pytest.approx(timing["total_wall_time"])
    assert timing["total_wall_time"] == values["wall_seconds"]
    assert "[Step 6] Validation - Loss: " in (run.path / "training.log").read_text()


def test_document_losses_add_up_to_the_whole_split(tiny_run):
    run = tiny_run()
    values = train(run)
    documents = np.load(run.path / "documents.npz")
    tokens = run.corpus.tokens("val")
    assert documents["tokens"].sum() == len(tokens) - 1
    mean = documents["nats"].sum() / documents["tokens"].sum()
    assert mean == pytest.approx(values["final_val_loss"], rel=1e-9)
    split = run.corpus.manifest["splits"]["val"]
    assert len(documents["nats"]) == split["documents"]
    bits_per_byte = mean * split["tokens"] / split["bytes"] / math.log(2)
    assert values["final_bits_per_byte"] == pytest.approx(bits_per_byte)


def test_the_same_seed_gives_the_same_bytes_and_another_does_not(tiny_run):
    first, second, other = tiny_run(folder="a"), tiny_run(folder="b"), tiny_run(folder="a", seed=2)
    for run in (first, second, other):
        train(run)
    assert without_clock(rows_of(first)) == without_clock(rows_of(second))
    states = [checkpoint.load(run.path / "latest.pt")["model"] for run in (first, second, other)]
    assert same_tensors(states[0], states[1])
    assert not torch.equal(states[0]["token_embedding.weight"], states[2]["token_embedding.weight"])


def test_arms_with_one_seed_see_the_same_batches(tiny_run):
    batches = []
    for exp in ("DEMO-01", "DEMO-02", "DEMO-03"):
        state = TrainingState(tiny_run(exp))
        epoch = state.batches.epoch_steps
        batches.append([state.batches(step)[0] for step in (0, 1, epoch + 1)])
    for other in batches[1:]:
        assert all(torch.equal(a, b) for a, b in zip(batches[0], other, strict=True))
    assert not torch.equal(batches[0][1], batches[0][2])  # each epoch has an order of its own


def test_the_logged_loss_is_the_mean_since_the_last_log_point(tiny_run, monkeypatch):
    run = tiny_run(machine__log_interval=8)
    losses = record_calls(monkeypatch, "backward", lambda state, loss: loss.item())
    train(run)
    rows = [row for row in rows_of(run) if row["event"] == "train"]
    assert [row["step"] for row in rows] == [8, 16, 24]
    for number, row in enumerate(rows):
        part = losses[8 * number : 8 * number + 8]
        assert row["loss"] == pytest.approx(sum(part) / 8, rel=1e-12)
        assert row["loss"] != pytest.approx(part[-1], rel=1e-6)


def test_a_row_holds_the_rate_and_norm_of_its_step(tiny_run, monkeypatch):
    run = tiny_run(machine__log_interval=5)
    norms = record_calls(monkeypatch, "clip", lambda state, norm: norm.item())
    train(run)
    for row in (row for row in rows_of(run) if row["event"] == "train"):
        assert row["grad_norm"] == norms[row["step"] - 1]
        rates = optim.learning_rates(row["step"] - 1, run.config.optim, 24)
        assert row["learning_rate"] == rates[0]


def test_best_weights_are_those_of_the_least_validation_loss_and_the_last_ones_are_back(
    tiny_run, monkeypatch
):
    """The rate is so high that the loss rises again; each evaluation scores the whole split."""
    states = keep_states(monkeypatch)
    rise = {"optim__learning_rate": 1.0, "optim__warmup_steps": 24, "train__eval_interval": 4}
    run = tiny_run(**rise, train__eval_tokens=100_000)
    summary = train(run)
    evals = dict(runs.read_status(run)["evals"])
    least = min(evals, key=evals.get)
    assert least not in (4, 24)
    best, latest = (checkpoint.load(run.path / f"{name}.pt") for name in ("best", "latest"))
    assert best["step"] == least == summary["best_step"]
    assert best["best"] == {"step": least, "loss": evals[least]}
    assert summary["best_subset_loss"] == evals[least]
    assert summary["best_val_loss"] == pytest.approx(evals[least], rel=1e-6)
    assert summary["final_val_loss"] == pytest.approx(evals[24], rel=1e-6)
    assert best["optimizer"] is None
    assert len(latest["optimizer"]["state"]) > 0
    assert not same_tensors(best["model"], latest["model"])
    assert same_tensors(states[0].model.state_dict(), latest["model"])


def test_a_finished_run_is_shown_not_trained(tiny_run, capsys):
    train(tiny_run())
    before = (tiny_run().path / "metrics.jsonl").read_bytes()
    summary = train(tiny_run())
    assert "is done" in capsys.readouterr().out
    assert summary["steps"] == 24
    assert (tiny_run().path / "metrics.jsonl").read_bytes() == before


def test_evaluation_disturbs_nothing(tiny_run):
    often, seldom = tiny_run(folder="a"), tiny_run(folder="b", train__eval_interval=24)
    train(often)
    train(seldom)
    first, second = (checkpoint.load(run.path / "latest.pt") for run in (often, seldom))
    assert same_tensors(first["model"], second["model"])
    assert torch.equal(first["random"]["cpu"], second["random"]["cpu"])


def test_saves_are_made_at_their_interval(tiny_run, monkeypatch):
    run, saved = tiny_run(), []
    save = checkpoint.Saver.save

    def keep(self, path, state, keep_previous=False):
        saved.append((path.name, state["step"], keep_previous))
        save(self, path, state, keep_previous)

    monkeypatch.setattr(checkpoint.Saver, "save", keep)
    train(run)
    latest = [(step, kept) for name, step, kept in saved if name == "latest.pt"]
    assert latest == [(step, True) for step in (5, 10, 15, 20, 24)]
    assert all(not kept for name, _, kept in saved if name == "best.pt")
    assert checkpoint.load(run.path / "latest.prev.pt")["step"] == 20


def test_days_on_a_cpu_are_a_warning(tiny_run):
    state = TrainingState(tiny_run(train__max_steps=10**9, train__eval_interval=10**9))
    assert re.fullmatch(
        r"on this CPU the run will take about .* \([\d.]+ days\); use a GPU, or rehearse with"
        r' overrides "train\.max_steps=10 train\.batch_size=1"',
        slow_warning(state),
    )
    assert slow_warning(TrainingState(tiny_run(folder="short"))) is None


def test_the_first_pass_over_a_batch_does_not_make_a_run_slow(tiny_run, monkeypatch):
    clock, cold_seconds = [0.0], {1: 0.05, 16: 10.0}

    def advance_clock(module, inputs):
        clock[0] += cold_seconds.pop(len(inputs[0]), 0.001)

    run = tiny_run(train__batch_size=16, train__max_steps=1000, train__eval_interval=1000)
    state = TrainingState(run)
    state.model.register_forward_pre_hook(advance_clock)
    monkeypatch.setattr(time_trial.time, "perf_counter", lambda: clock[0])
    assert time_trial.slow_warning(state) is None
    assert cold_seconds == {}


@pytest.mark.parametrize(
    ("changes", "shorter"),
    [
        ({"max_steps": 11, "batch_size": 1}, "train.max_steps=10"),
        ({"max_steps": 10}, "train.batch_size=1"),
        ({"max_steps": 10, "batch_size": 1}, ""),
        ({"max_steps": 10, "batch_size": 1, "eval_tokens": 8192}, "train.eval_tokens=4096"),
    ],
)
def test_a_slow_rehearsal_is_not_told_what_it_has(tiny_run, changes, shorter):
    run = tiny_run(**{f"train__{key}": value for key, value in changes.items()})
    assert time_trial._shorter_overrides(TrainingState(run)) == shorter  # its corpus is stories


def test_the_projected_time_has_steps_evaluations_and_the_last_scores_in_it(tiny_run, monkeypatch):
    state = TrainingState(tiny_run())
    train, windows = state.cfg.train, time_trial._val_windows(state)
    scored = 24 // train.eval_interval * len(windows.subset(train.eval_tokens)) + 2 * windows.count
    expected = 23 * 0.25 * (1 + SLACK) + 0.25 * UNMEASURED * scored / train.batch_size
    assert time_trial._projected_seconds(state, 0.25) == pytest.approx(expected)


def test_a_warm_up_longer_than_the_run_is_a_warning(tiny_run, capsys):
    train(tiny_run(optim__warmup_steps=100))
    assert "optim.warmup_steps = 100 is longer than train.max_steps = 24" in capsys.readouterr().out
    train(tiny_run(optim__warmup_steps=24))
    assert "is longer than" not in capsys.readouterr().out


def test_a_rehearsal_that_ends_before_its_freeze_is_trained_with_a_warning(tiny_run, capsys):
    words = "model.freeze_from = 24 is not before train.max_steps = 24, so W_q and W_k are never"
    summary = train(tiny_run(model__freeze_from=24))
    assert words in capsys.readouterr().out
    assert [part["tensors"] for part in summary["frozen"]] == [0]
    train(tiny_run(model__freeze_from=23))
    assert "never frozen" not in capsys.readouterr().out


@pytest.mark.parametrize("length", [2, 4])
def test_windows_shorter_than_the_prompt_of_samples_train(tiny_run, length):
    run = tiny_run(model__max_seq_len=length)
    assert train(run)["steps"] == 24
    assert len(rows_of(run)[-1]["logit_std"]) == 2


def test_a_session_counts_the_time_of_its_phases(tiny_run, monkeypatch):
    monkeypatch.setattr(time, "perf_counter", time.thread_time)  # not what other processes take
    run = tiny_run()
    train(run)
    budget = runs.read_timing(run)["budget"]
    for phase in ("setup", "data", "step", "evaluation", "saving", "final_evaluation"):
        assert budget[phase] > 0, phase
    assert budget["compile"] < 0.01


def test_the_loop_is_imported_by_its_package():
    from oelm_lib import training

    assert training.train is loop.train
    assert dir(training) == training.__all__
    for name in training.__all__:
        assert callable(getattr(training, name))
    with pytest.raises(AttributeError, match="no attribute 'trian'"):
        _ = training.trian


def test_after_an_evaluation_and_a_save_the_state_is_running(tiny_run, monkeypatch):
    run, saves = tiny_run(), []
    with open_session(run) as session:
        monkeypatch.setattr(session.progress, "add_save", saves.append)
        evaluate(session)
        assert not saves  # best.pt is saved at no interval: the forecast does not count it
        evaluate(session)  # not the best any more
        assert runs.read_status(run)["state"] == "running"
        save(session)
        assert len(saves) == 1
        assert runs.read_status(run)["state"] == "running"
        assert runs.read_status(run)["device"]


def test_a_session_that_only_opens_is_a_stopped_run(tiny_run):
    run = tiny_run()
    with open_session(run) as session:
        assert session.state.step == 0
        assert run.lock.held
    assert not run.lock.held
    assert runs.read_status(run)["state"] == "stopped"
