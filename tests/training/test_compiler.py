"""torch.compile of the training step: all of it before the first step, and none in the loop."""

import json
import subprocess
import sys

import pytest
import torch

from oelm_lib import runs
from oelm_lib.config import load_config
from oelm_lib.errors import UserError
from oelm_lib.training import checkpoint, compiler
from oelm_lib.training.state import TrainingState
from tests.conftest import TINY_RUN
from tests.training.helpers import keep_states, same_tensors, train

SCHEDULE = {"model.freeze_from": 4, "model.freeze_until": 9}
TINY = TINY_RUN | {"train.max_steps": 12, "model.num_layers": 1}
ARMS = {
    "baseline": ("DEMO-01", {}),
    "half": ("DEMO-02", {"train.precision": "bf16"}),
    "scheduled": (
        "DEMO-02",
        {"model.qk_bias": True, "model.delta_rank": 2, "model.position": "t5", **SCHEDULE},
    ),
}
LOSS_TOLERANCE = 1e-4
"""Compiled kernels add in another order."""
HALF_TOLERANCE = 0.02
"""They also round at other places."""


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
    monkeypatch.setattr(compiler, "compile_model", lambda model, device: fails)
    train(run)
    assert (
        "torch.compile failed (RuntimeError: no C++ compiler); this run" in capsys.readouterr().out
    )
    assert runs.read_config(run)["resolved"]["compile"] is False
    assert not states[0].compiled
    assert runs.read_summary(run)["final_val_loss"] == runs.read_summary(plain)["final_val_loss"]


def test_a_failed_compilation_is_an_error_under_on(tiny_run, monkeypatch):
    monkeypatch.setattr(compiler, "compile_model", lambda model, device: fails)
    run = tiny_run(machine__compile="on")
    with pytest.raises(UserError, match=r"machine.compile = on: torch.compile failed .*=off$"):
        train(run)
    assert runs.state(run) == "failed"


@pytest.mark.parametrize("error", [torch.OutOfMemoryError, torch.AcceleratorError])
def test_a_gpu_that_fails_is_no_failed_compilation(tiny_run, monkeypatch, error):
    def broken(*args, **kwargs):
        raise error("CUDA error")

    monkeypatch.setattr(compiler, "compile_model", lambda model, device: broken)
    with pytest.raises(error):
        TrainingState(tiny_run(machine__compile="on")).compile()


def test_warming_up_leaves_no_trace(tiny_run, monkeypatch):
    """Whatever freeze states are still to come; here at steps 0, 4 and 9, or 5 and 9."""
    seen = []

    def warm_up(step, device, real=compiler.warm_up):
        frozen = [n for n, p in states[-1].model.named_parameters() if not p.requires_grad]
        seen.append(len(frozen))
        real(step, device)

    states = keep_states(monkeypatch)
    monkeypatch.setattr(compiler, "compile_model", lambda model, device: model)
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


SCRIPT = """
import json, sys
import torch
from oelm_lib import config, runs, training
from oelm_lib.training.session import Session

outputs, overrides, arms = sys.argv[1], *map(json.loads, sys.argv[2:])
stopping = Session.stopping


def stop(session):
    # Once the loop has begun, a recompilation is an error.
    torch.compiler.set_stance("fail_on_recompile")
    if stops and session.state.step == stops[0]:
        stops.pop(0)
        return True
    return stopping(session)


Session.stopping = stop
for arm, (exp, changes, *stops) in arms.items():
    for _ in range(len(stops) + 1):
        torch.compiler.set_stance("default")
        cfg = config.load_config(exp, overrides | changes)
        training.train(runs.open_run(cfg, 1, f"{outputs}/{arm}"))
"""


def run_apart(outputs, overrides, arms):
    """Train the arms in a process without jaxtyping's hook, through which nothing compiles.

    Args:
        arms: Name -> experiment, changes and the steps at which its run is stopped.

    Returns:
        The run folder of each arm.
    """
    command = [sys.executable, "-c", SCRIPT, str(outputs), *map(json.dumps, (overrides, arms))]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    return {arm: next((outputs / arm).glob("*/seed1")) for arm in arms}


@pytest.mark.slow
def test_more_forms_of_a_function_are_compiled_than_torch_keeps():
    from torch._dynamo import config

    def add(x):
        return x + 1

    with config.patch(recompile_limit=1, fail_on_recompile_limit_hit=True):
        for length in (2, 3):
            done = compiler.compile_anew(add, "default")(torch.ones(length))
            assert torch.equal(done, torch.full((length,), 2.0))


@pytest.mark.slow
@pytest.mark.long
def test_no_arm_is_recompiled_in_the_loop_and_losses_are_the_same(tiny_config, tmp_path):
    """Freeze intervals begin at steps 4 and 9."""
    overrides = TINY | {"model.dropout": 0.0}
    compiled = run_apart(tmp_path / "on", overrides | {"machine.compile": "on"}, ARMS)
    for arm, (exp, changes) in ARMS.items():
        plain = runs.open_run(load_config(exp, overrides | changes), 1, tmp_path / "off" / arm)
        train(plain)
        assert runs.read_config(compiled[arm])["resolved"]["compile"] is True
        budget = runs.read_timing(compiled[arm])["budget"]
        assert budget["compile"] > budget["step"]
        tolerance = HALF_TOLERANCE if arm == "half" else LOSS_TOLERANCE
        losses = [runs.read_summary(run)["final_val_loss"] for run in (plain, compiled[arm])]
        assert losses[1] == pytest.approx(losses[0], abs=tolerance), arm


@pytest.mark.slow
def test_a_compiled_run_that_is_stopped_continues_bit_equal(tiny_config, tmp_path):
    arms = {"whole": ARMS["scheduled"], "parted": (*ARMS["scheduled"], 4, 7)}
    folders = run_apart(tmp_path, TINY | {"machine.compile": "on"}, arms)
    first, second = (checkpoint.load(folders[name] / "latest.pt") for name in arms)
    sessions = [len(runs.read_config(folders[name])["sessions"]) for name in arms]
    assert sessions == [1, 3]
    assert same_tensors(first["model"], second["model"])
    assert torch.equal(first["random"]["cpu"], second["random"]["cpu"])
