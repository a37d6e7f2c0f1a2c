"""torch.compile of the training step: all of it before the first step, and none in the loop."""

import pytest
import torch

from oelm_lib import runs
from oelm_lib.config import load_config
from oelm_lib.errors import UserError
from oelm_lib.training import compiler
from oelm_lib.training.state import TrainingState
from tests.training.helpers import keep_states, same_tensors, train

SCHEDULE = {"model__freeze_from": 4, "model__freeze_until": 9}
ARMS = {
    "baseline": ("DEMO-01", {}),
    "oelm_freeze": ("DEMO-02", {}),
    "scheduled": ("DEMO-02", SCHEDULE),
    "half": ("DEMO-02", {"train__precision": "bf16"}),
    "additions": (
        "DEMO-02",
        {"model__qk_bias": True, "model__delta_rank": 2, "model__position": "t5", **SCHEDULE},
    ),
}
LOSS_TOLERANCE = 1e-4
"""Compiled kernels add in another order."""


@pytest.mark.parametrize(
    ("choice", "on_cpu", "on_gpu"),
    [("auto", False, True), ("off", False, False), ("on", True, True)],
)
def test_auto_compiles_on_a_gpu_only(choice, on_cpu, on_gpu):
    assert compiler.is_enabled(choice, torch.device("cpu")) == on_cpu
    assert compiler.is_enabled(choice, torch.device("cuda:0")) == on_gpu


@pytest.mark.parametrize(
    ("text", "choice"), [("on", "on"), ("off", "off"), ("auto", "auto"), ("true", "on")]
)
def test_yaml_words_for_a_switch_are_understood(text, choice):
    assert load_config("DEMO-02", f"machine.compile={text}").machine.compile == choice


def fails(*args, **kwargs):
    raise RuntimeError("no C++ compiler\nand more lines")


def test_a_failed_compilation_is_a_warning_under_auto(tiny_run, monkeypatch, capsys):
    plain, run = tiny_run(folder="a"), tiny_run(folder="b")
    train(plain)
    states = keep_states(monkeypatch)
    monkeypatch.setattr(compiler, "is_enabled", lambda choice, device: True)
    monkeypatch.setattr(compiler, "compiled", lambda model, device: fails)
    train(run)
    assert (
        "torch.compile failed (RuntimeError: no C++ compiler); this run" in capsys.readouterr().out
    )
    assert runs.read_config(run)["resolved"]["compile"] is False
    assert not states[0].compiled
    assert runs.read_summary(run)["final_val_loss"] == runs.read_summary(plain)["final_val_loss"]


def test_a_failed_compilation_is_an_error_under_on(tiny_run, monkeypatch):
    monkeypatch.setattr(compiler, "compiled", lambda model, device: fails)
    run = tiny_run(machine__compile="on")
    with pytest.raises(UserError, match=r"machine.compile = on: torch.compile failed .*=off$"):
        train(run)
    assert runs.state(run) == "failed"


def test_warming_up_leaves_no_trace(tiny_run, monkeypatch):
    """Whatever freeze states are still to come; here at steps 0, 4 and 9, or 5 and 9."""
    seen = []

    def warm_up(step, device, real=compiler.warm_up):
        frozen = [n for n, p in states[-1].model.named_parameters() if not p.requires_grad]
        seen.append(len(frozen))
        real(step, device)

    states = keep_states(monkeypatch)
    monkeypatch.setattr(compiler, "compiled", lambda model, device: model)
    monkeypatch.setattr(compiler, "warm_up", warm_up)
    run = tiny_run(machine__compile="on", **SCHEDULE)
    state, twin = TrainingState(run), TrainingState(tiny_run(folder="b", **SCHEDULE))
    for _ in range(2):
        states.append(state)
        generator = torch.get_rng_state()
        state.compile()
        assert torch.equal(torch.get_rng_state(), generator)
        assert same_tensors(state.model.state_dict(), twin.model.state_dict())
        assert not any(p.grad is not None for p in state.model.parameters())
        grads = [p.requires_grad for p in state.model.parameters()]
        assert grads == [p.requires_grad for p in twin.model.parameters()]
        assert (state.loss_steps, state.health.steps) == (twin.loss_steps, twin.health.steps)
        for _ in range(5):
            draws = torch.get_rng_state()
            state.advance()
            torch.set_rng_state(draws)
            twin.advance()
    assert sorted(seen) == [0, 0, 0, 4, 4]


@pytest.mark.slow
@pytest.mark.parametrize("arm", ARMS)
def test_no_arm_is_recompiled_in_the_loop_and_losses_are_the_same(tiny_run, monkeypatch, arm):
    exp, changes = ARMS[arm]
    changes = {"train__max_steps": 12, "model__dropout": 0.0, **changes}
    plain = tiny_run(exp, folder="plain", **changes)
    train(plain)
    torch._dynamo.reset()
    run = tiny_run(exp, folder="compiled", machine__compile="on", **changes)
    update, stance = TrainingState.update, []

    def forbid_recompilation(state):
        if not stance:
            torch.compiler.set_stance("fail_on_recompile")
            stance.append(True)
        return update(state)

    monkeypatch.setattr(TrainingState, "update", forbid_recompilation)
    try:
        train(run)
    finally:
        torch.compiler.set_stance("default")
    assert runs.read_config(run)["resolved"]["compile"] is True
    budget = runs.read_timing(run)["budget"]
    assert budget["compile"] > 10 * budget["step"] / 12
    tolerance = 0.02 if arm == "half" else LOSS_TOLERANCE
    losses = [runs.read_summary(each)["final_val_loss"] for each in (plain, run)]
    assert losses[1] == pytest.approx(losses[0], abs=tolerance)


@pytest.mark.slow
def test_a_compiled_run_that_is_stopped_continues_bit_equal(tiny_run, monkeypatch):
    from oelm_lib.training import checkpoint
    from tests.training.helpers import stop_at

    changes = {"train__max_steps": 12, "machine__compile": "on", **SCHEDULE}
    whole = tiny_run(folder="whole", **changes)
    train(whole)
    stop_at(monkeypatch, 4, 7)
    for _ in range(3):
        parted = tiny_run(folder="parted", **changes)
        train(parted)
    first, second = (checkpoint.load(run.path / "latest.pt") for run in (whole, parted))
    assert same_tensors(first["model"], second["model"])
    assert torch.equal(first["random"]["cpu"], second["random"]["cpu"])
