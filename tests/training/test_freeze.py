"""Frozen tensors are proved to stay as they are."""

import pytest
import torch

from oelm_lib import runs
from oelm_lib.training.state import TrainingState
from tests.training.helpers import train


def test_each_interval_of_a_freeze_has_its_proof(tiny_run):
    run = tiny_run(model__freeze_from=7, model__freeze_until=13)
    train(run)
    before, frozen, after = runs.read_summary(run)["frozen"]
    intervals = [(part["from_step"], part["to_step"]) for part in (before, frozen, after)]
    assert intervals == [(0, 7), (7, 13), (13, 24)]
    assert [part["tensors"] for part in (before, frozen, after)] == [0, 4, 0]
    assert frozen["sha256_start"] == frozen["sha256_end"]
    assert before["sha256_start"] == after["sha256_end"] != frozen["sha256_start"]
    assert runs.read_summary(run)["parameters"]["frozen"] == 0


def test_a_freeze_from_the_start_holds_until_its_end(tiny_run):
    state = TrainingState(tiny_run(model__freeze_until=3))
    weight = state.model.blocks[0].attention.q_proj.weight
    start = weight.detach().clone()
    assert state.proof.intervals[0]["tensors"] == 4
    for _ in range(3):
        state.advance()
        assert torch.equal(weight, start)
    state.advance()
    assert not torch.equal(weight, start)


def test_a_freeze_of_the_first_step_alone_is_proved(tiny_run):
    state = TrainingState(tiny_run(model__freeze_until=1))
    assert state.proof.intervals[0]["tensors"] == 4


@pytest.mark.parametrize("step", [5, 24])
def test_frozen_weights_that_move_are_an_error(tiny_run, monkeypatch, step):
    update = TrainingState.update

    def move(state):
        rate = update(state)
        if state.step == step:
            state.model.blocks[0].attention.q_proj.weight.data[0, 0] += 1e-6
        return rate

    monkeypatch.setattr(TrainingState, "update", move)
    run = tiny_run()
    with pytest.raises(RuntimeError, match="frozen tensors changed between steps 0 and 24"):
        train(run)
    assert runs.read_summary(run) is None


def test_frozen_weights_that_move_before_an_interval_ends_are_an_error(tiny_run, monkeypatch):
    update = TrainingState.update

    def move(state):
        rate = update(state)
        if state.step == 9:
            state.model.blocks[0].attention.q_proj.weight.data[0, 0] += 1e-6
        return rate

    monkeypatch.setattr(TrainingState, "update", move)
    with pytest.raises(RuntimeError, match="frozen tensors changed between steps 7 and 13"):
        train(tiny_run(model__freeze_from=7, model__freeze_until=13))
