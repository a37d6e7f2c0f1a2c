"""What the tests of training share: runs, their rows, faults at a chosen step."""

import contextlib
import json
import math

import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from oelm_lib import training
from oelm_lib.runs import read_summary
from oelm_lib.training import optim, precision, state
from oelm_lib.training.precision import Precision
from oelm_lib.training.session import Session
from oelm_lib.training.state import TrainingState


def train(run):
    """Train a run; returns its summary.json, or {} where it was stopped."""
    training.train(run)
    return read_summary(run) or {}


def rows_of(run):
    """Rows of metrics.jsonl."""
    return [json.loads(line) for line in (run.path / "metrics.jsonl").read_text().splitlines()]


def stop_at(monkeypatch, *steps):
    """Request a stop when the loop has made these steps, once each."""
    left = list(steps)

    def stopping(session):
        if left and session.state.step == left[0]:
            left.pop(0)
            return True
        return False

    monkeypatch.setattr(Session, "stopping", stopping)


def take_literally(monkeypatch):
    """Let fp16 on a CPU be fp16."""
    monkeypatch.setattr(
        state, "resolve_precision", lambda name, device: (Precision(name, device), None)
    )


def force_gpu_path(monkeypatch):
    """Let the CPU be treated as a device on which reading a number makes the host wait."""
    monkeypatch.setattr(state, "is_asynchronous", lambda device: True)
    monkeypatch.setattr(precision, "is_asynchronous", lambda device: True)


def spoil(monkeypatch, steps, where="loss"):
    """Make the loss, or a gradient, of these steps (1, 2, ...) not finite; returns what was seen.

    Returns:
        A list that holds the loss of each step, as it was before.
    """
    backward, losses = optim.backward, []

    def spoiled(model, *args):
        loss = backward(model, *args)
        losses.append(loss.item())
        if len(losses) in steps:
            parameters = [p for p in model.parameters() if p.grad is not None]
            if where == "loss":
                return loss * math.nan
            parameters[0].grad[0] = math.inf
        return loss

    monkeypatch.setattr(optim, "backward", spoiled)
    return losses


def record_calls(monkeypatch, method, result):
    """Return a list to which each call of a TrainingState's method adds `result(state, value)`.

    Args:
        result: Of the state after the call and the value that it returned.
    """
    original, results = getattr(TrainingState, method), []

    def recording(state, *args):
        value = original(state, *args)
        results.append(result(state, value))
        return value

    monkeypatch.setattr(TrainingState, method, recording)
    return results


def record_weights(monkeypatch):
    """Return a list of the weights after each update."""
    return record_calls(
        monkeypatch,
        "update",
        lambda state, _: {name: w.clone() for name, w in state.model.state_dict().items()},
    )


def keep_states(monkeypatch):
    """Return a list to which every TrainingState that is made from now on is added."""
    made, init = [], TrainingState.__init__

    def keep(self, run):
        init(self, run)
        made.append(self)

    monkeypatch.setattr(TrainingState, "__init__", keep)
    return made


class HostReads(TorchDispatchMode):
    """Counts the reads of tensors that the host waits for: scalars, and copies to the host.

    On a CPU `tolist`, `cpu` and `to("cpu")` dispatch no operator, so their calls are counted.
    """

    def __init__(self):
        super().__init__()
        self.count = 0
        self.within_call = False
        self._calls = _Calls(self)

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.count += not self.within_call and "_local_scalar_dense" in str(func)
        return func(*args, **(kwargs or {}))

    @contextlib.contextmanager
    def counting(self):
        """Count within the block."""
        with self, self._calls:
            yield self


READING_METHODS = {"tolist", "item", "cpu", "equal"}
READING_METHODS |= {"__bool__", "__int__", "__float__", "__index__"}


class _Calls(TorchFunctionMode):
    """Counts calls of the reading methods, and not the operators within them again."""

    def __init__(self, reads):
        super().__init__()
        self._reads = reads

    def __torch_function__(self, func, types, args=(), kwargs=None):
        name, kwargs = getattr(func, "__name__", ""), kwargs or {}
        # A tensor's own device is a torch.device; who wants the host writes "cpu".
        given = [value for value in (*args[1:], *kwargs.values()) if isinstance(value, str)]
        to_host = name == "to" and "cpu" in given
        if self._reads.within_call or not (name in READING_METHODS or to_host):
            return func(*args, **kwargs)
        self._reads.count += 1
        self._reads.within_call = True
        try:
            return func(*args, **kwargs)
        finally:
            self._reads.within_call = False


def same_tensors(first, second):
    """Whether two state dicts hold equal tensors under equal names."""
    return first.keys() == second.keys() and all(
        torch.equal(first[name], second[name]) for name in first
    )
