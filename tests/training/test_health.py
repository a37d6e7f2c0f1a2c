"""Losses and gradients that are not finite."""

import json
import math

import pytest
import torch

from oelm_lib import runs
from oelm_lib.errors import UserError
from oelm_lib.training import checkpoint, record, replay_step
from oelm_lib.training.health import FP16_LIMIT, Health
from oelm_lib.training.precision import Precision
from oelm_lib.training.state import TrainingState
from tests.training.helpers import (
    force_gpu_path,
    keep_states,
    record_weights,
    rows_of,
    same_tensors,
    spoil,
    stop_at,
    take_literally,
    train,
)

CPU = torch.device("cpu")


def watch(health, loss, norm=1.0):
    return health.watch(torch.tensor(loss), torch.tensor(norm)).item()


@pytest.mark.parametrize("name", ["fp32", "bf16"])
@pytest.mark.parametrize(
    "bad", [(math.nan, 1.0), (math.inf, 1.0), (1.0, math.nan), (1.0, math.inf)]
)
def test_a_run_fails_at_its_first_bad_step_and_skips_every_later_update(name, bad):
    health = Health(Precision(name, CPU))
    assert [watch(health, 2.0, 3.0), watch(health, 1.0, 4.0)] == [3.0, 4.0]
    assert health.failure(health.numbers.tolist()) is None
    assert math.isnan(watch(health, *bad))
    for _ in range(5):
        assert math.isnan(watch(health, 7.0, 8.0))
    failure = health.failure(health.numbers.tolist())
    assert (failure.step, health.limit) == (3, 1)
    assert (failure.loss, failure.norm) == pytest.approx(bad, nan_ok=True)


def test_an_fp16_run_fails_at_thirty_bad_steps_in_a_row():
    health = Health(Precision("fp16", CPU))
    for _ in range(FP16_LIMIT - 1):
        assert math.isnan(watch(health, math.inf))
    assert watch(health, 1.0, 2.0) == 2.0  # one good step: the count starts again
    for number in range(FP16_LIMIT):
        assert health.failure(health.numbers.tolist()) is None
        watch(health, 1.5, math.inf if number < FP16_LIMIT - 1 else math.nan)
    assert math.isnan(watch(health, 1.0))
    failure = health.failure(health.numbers.tolist())
    assert (failure.step, failure.loss, health.limit) == (2 * FP16_LIMIT, 1.5, FP16_LIMIT)
    assert math.isnan(failure.norm)


@pytest.mark.parametrize("where", ["loss", "gradient"])
def test_numbers_that_go_bad_stop_the_run_before_the_update(tiny_run, monkeypatch, where):
    run = tiny_run(machine__log_interval=2)
    states = keep_states(monkeypatch)
    spoil(monkeypatch, [7], where)
    weights = record_weights(monkeypatch)
    words = r"step 7: loss is .*; last finite loss .* at step 6; the run is kept in .*replay.*"
    with pytest.raises(UserError, match=words + "lower optim.learning_rate$"):
        train(run)
    assert states[0].step == 6
    assert same_tensors(states[0].model.state_dict(), weights[-1])
    status = runs.read_status(run)
    assert (status["state"], status["step"]) == ("failed", 6)
    assert "step 7: loss is" in status["error"]
    bad = json.loads((run.path / "bad_step.json").read_text())
    assert bad["step"] == 7
    assert bad["windows"] == states[0].batches.window_numbers(6).tolist()
    assert bad.keys() == {"step", "windows", "reason", "loss", "grad_norm"}
    assert status["error"].startswith(bad["reason"] + "; ") and "at step 6" in bad["reason"]


@pytest.mark.parametrize("where", ["loss", "gradient"])
@pytest.mark.parametrize("name", ["fp32", "bf16"])
def test_on_a_gpu_updates_are_skipped_until_the_host_learns_of_it(
    tiny_run, monkeypatch, name, where
):
    """The bad step is 4; the next log point is 10, the next save at 8."""
    force_gpu_path(monkeypatch)
    take_literally(monkeypatch)
    states = keep_states(monkeypatch)
    run = tiny_run(train__precision=name, train__save_interval=8, train__eval_interval=24)
    weights = record_weights(monkeypatch)
    spoil(monkeypatch, [4], where)
    with pytest.raises(UserError, match=r"step 4: loss is .*no finite loss before"):
        train(run)
    assert states[0].step == len(weights) == 8
    assert not same_tensors(weights[1], weights[2])
    for later in weights[3:]:
        assert same_tensors(weights[2], later)
    for moments in states[0].optimizer.state.values():
        assert moments["exp_avg"].isfinite().all()
    assert not (run.path / "latest.pt").exists()


def test_one_fp16_overflow_is_skipped_halves_the_scale_and_does_not_end_the_run(
    tiny_run, monkeypatch
):
    """Of the loss as of a gradient."""
    take_literally(monkeypatch)
    states = keep_states(monkeypatch)
    weights = record_weights(monkeypatch)
    run = tiny_run(train__precision="fp16")
    losses = spoil(monkeypatch, [7], "loss")
    train(run)
    assert runs.read_status(run)["state"] == "done"
    assert same_tensors(weights[5], weights[6])
    assert not same_tensors(weights[6], weights[7])
    assert states[0].precision.scaler.get_scale() == 65536.0 / 2
    counted = [*losses[:6], *losses[7:10]]
    train_row = next(row for row in rows_of(run) if row["event"] == "train")
    assert train_row["loss"] == pytest.approx(sum(counted) / 9, rel=1e-12)


def test_gradients_that_are_never_finite_stop_an_fp16_run(tiny_run, monkeypatch):
    take_literally(monkeypatch)
    states = keep_states(monkeypatch)
    spoil(monkeypatch, range(5, 1000), "gradient")
    run = tiny_run(train__precision="fp16", train__max_steps=60)
    words = "step 34: loss is .*, gradient norm (inf|nan) for 30 steps in a row; .*precision=fp32$"
    with pytest.raises(UserError, match=words):
        train(run)
    assert states[0].precision.scaler.get_scale() < 1e-3
    assert runs.read_status(run)["state"] == "failed"


def test_the_count_of_overflows_continues_after_a_stop(tiny_run, monkeypatch):
    take_literally(monkeypatch)
    spoil(monkeypatch, range(5, 1000), "gradient")
    stop_at(monkeypatch, 20)
    schedule = {"train__precision": "fp16", "train__max_steps": 60}
    train(tiny_run(**schedule))
    with pytest.raises(UserError, match=r"step 34: loss is .* for 30 steps in a row"):
        train(tiny_run(**schedule))


@pytest.mark.parametrize("at", [6, 24])
def test_a_validation_loss_that_is_not_finite_stops_the_run(tiny_run, monkeypatch, at):
    """The first evaluation, and the last: no null gets into status.json or summary.json."""
    run, mean_loss = tiny_run(), record.mean_loss

    def diverged(losses):
        return math.nan if session[0].step == at else mean_loss(losses)

    session = keep_states(monkeypatch)
    monkeypatch.setattr(record, "mean_loss", diverged)
    with pytest.raises(
        UserError, match=rf"step {at}: val_loss is nan; .*lower optim.learning_rate"
    ):
        train(run)
    status = runs.read_status(run)
    assert status["state"] == "failed"
    assert [step for step, _ in status["evals"]] == [step for step in (6, 12, 18) if step < at]
    assert all(loss is not None for _, loss in status["evals"])
    if at == 6:
        assert status["best"] is None
    else:
        assert status["best"]["loss"] is not None
    assert runs.read_summary(run) is None
    bad = json.loads((run.path / "bad_step.json").read_text())
    assert (bad["step"], bad["val_loss"]) == (at, None)


def test_weights_that_diverge_in_the_last_step_leave_no_summary(tiny_run):
    """In fp32 the remedy is a lower rate alone."""
    run = tiny_run(optim__learning_rate=1e30, optim__warmup_steps=0, train__max_steps=1)
    with pytest.raises(UserError, match=r"step 1: .*lower optim.learning_rate$"):
        train(run)
    assert runs.state(run) == "failed"
    assert runs.read_summary(run) is None


def test_a_bad_step_is_replayed_from_the_checkpoint_and_nothing_is_written(tiny_run, monkeypatch):
    run = tiny_run()
    with pytest.raises(UserError, match="no step to replay"):
        replay_step(run.path)
    with monkeypatch.context() as patch:
        losses = spoil(patch, [7])
        words = f"look at the step: oelm replay {run.name}".replace("+", r"\+")
        with pytest.raises(UserError, match=words):
            train(run)
    before = {path.name: path.stat().st_mtime_ns for path in run.path.iterdir()}
    lines = replay_step(run.path).splitlines()
    assert lines[0] == f"step 7 again from step 5: loss {losses[6]:.6g}"
    assert lines[1].startswith("recorded: step 7: loss is nan, gradient norm ")
    assert any(line.endswith("blocks.0.attention.v_proj.weight") for line in lines)
    assert not any(line.endswith("blocks.0.attention.q_proj.weight") for line in lines)  # frozen
    assert {path.name: path.stat().st_mtime_ns for path in run.path.iterdir()} == before


def test_a_replayed_step_trains_what_the_run_did(tiny_run, monkeypatch):
    """freeze_from = 6: the bad step 7 is the first whose Q and K are frozen."""
    run = tiny_run(model__freeze_from=6)
    with monkeypatch.context() as patch:
        spoil(patch, [7])
        with pytest.raises(UserError, match="look at the step"):
            train(run)
    lines = replay_step(run.path).splitlines()
    assert any(line.endswith("v_proj.weight") for line in lines)
    assert not any(line.endswith("q_proj.weight") for line in lines)


def test_a_step_before_the_first_checkpoint_is_replayed_and_one_before_the_last_is_not(
    tiny_run, monkeypatch
):
    run = tiny_run()
    with monkeypatch.context() as patch:
        losses = spoil(patch, [3])
        with pytest.raises(UserError, match="step 3: loss is"):
            train(run)
    first = replay_step(run.path).splitlines()[0]
    assert first.startswith(f"step 3 again from step 0: loss {losses[2]:.6g}")
    state = TrainingState(run)
    for _ in range(3):
        state.advance()
    checkpoint.save(run.path / "latest.pt", state.state_dict())
    with pytest.raises(UserError, match="of step 3, is past step 3; nothing to replay"):
        replay_step(run.path)


def test_an_fp16_step_is_replayed_with_unscaled_norms(tiny_run, monkeypatch):
    take_literally(monkeypatch)
    run = tiny_run(train__precision="fp16")
    with monkeypatch.context() as patch:
        spoil(patch, range(3, 1000), "gradient")
        with pytest.raises(UserError, match="for 30 steps in a row"):
            train(tiny_run(train__precision="fp16", train__max_steps=40))
    run = tiny_run(train__precision="fp16", train__max_steps=40)
    norms = [float(line.split()[0]) for line in replay_step(run).splitlines()[3:]]
    assert 0.01 < max(norms) < 10.0
