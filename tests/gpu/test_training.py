"""Training on a GPU: host reads, recompilation, resume, frozen weights."""

import pytest
import torch

from oelm_lib import runs
from oelm_lib.training import checkpoint, state
from tests.clocked import without_clock
from tests.training.helpers import rows_of, stop_at, train
from tests.training.test_compiler import ARMS, TINY, run_apart

CURVE_TOLERANCE = 1e-2
"""Nats: sums on a GPU may change order between two runs."""


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_ten_steps_synchronise_nowhere(gpu_run, precision):
    training = state.TrainingState(gpu_run(train__precision=precision))
    training.advance()
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        for _ in range(10):
            training.advance()
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert training.step == 11


def test_no_arm_is_recompiled_in_the_loop(tiny_config, tmp_path):
    overrides = TINY | {"model.dropout": 0.0, "machine.device": "cuda"}
    plain = run_apart(tmp_path / "plain", overrides | {"machine.compile": "off"}, ARMS)
    compiled = run_apart(tmp_path / "on", overrides | {"machine.compile": "on"}, ARMS)
    for arm in set(ARMS) - {"half"}:
        assert runs.read_config(compiled[arm])["resolved"]["compile"] is True
        losses = [runs.read_summary(each[arm])["final_val_loss"] for each in (plain, compiled)]
        assert losses[1] == pytest.approx(losses[0], abs=CURVE_TOLERANCE)


def test_a_run_stopped_during_a_background_save_continues_on_its_curve(gpu_run, monkeypatch):
    schedule = {"train__save_interval": 5}
    undisturbed = gpu_run(folder="a", **schedule)
    train(undisturbed)
    stop_at(monkeypatch, 5, 11)  # at step 5 the save of that step is still being written
    for _ in range(3):
        run = gpu_run(folder="b", **schedule)
        train(run)
    assert runs.read_status(run)["state"] == "done"
    pairs = zip(without_clock(rows_of(run)), without_clock(rows_of(undisturbed)), strict=True)
    for row, expected in pairs:
        assert (row["event"], row["step"]) == (expected["event"], expected["step"])
        assert row["loss"] == pytest.approx(expected["loss"], abs=CURVE_TOLERANCE)


def test_a_checkpoint_restores_the_state_exactly(gpu_run, monkeypatch):
    stop_at(monkeypatch, 7)
    run = gpu_run()
    train(run)
    saved = checkpoint.load(run.path / "latest.pt")
    again = state.TrainingState(gpu_run())
    again.load_state_dict(saved, run.path / "latest.pt")
    restored = again.state_dict()
    for name, tensor in saved["model"].items():
        assert torch.equal(restored["model"][name].cpu(), tensor)
    assert torch.equal(restored["random"]["cuda"], saved["random"]["cuda"])
    assert restored["step"] == 7


def test_frozen_weights_are_those_of_the_start(gpu_run):
    run = gpu_run()
    train(run)
    (interval,) = runs.read_summary(run)["frozen"]
    assert interval["sha256_start"] == interval["sha256_end"]


def test_deterministic_runs_are_bit_equal(gpu_run):
    losses = []
    for folder in ("a", "b"):
        run = gpu_run(folder=folder, machine__deterministic=True)
        train(run)
        losses.append(runs.read_summary(run)["final_val_loss"])
    assert losses[0] == losses[1]
