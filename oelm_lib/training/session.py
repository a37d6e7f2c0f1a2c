"""Training session: files, clocks and status around the state; no checkpoint stores them."""

import contextlib
import shutil
from collections.abc import Callable, Iterator

import psutil
import torch

from oelm_lib.config import Experiment
from oelm_lib.data import EvalWindows
from oelm_lib.errors import UserError
from oelm_lib.runs.folder import Run, disk_error
from oelm_lib.runs.lock import LockLost
from oelm_lib.runs.metrics import Recorder
from oelm_lib.runs.reading import read_metrics
from oelm_lib.runs.schema import EXECUTED
from oelm_lib.runs.status import Status
from oelm_lib.runs.stop import StopRequest, on_stop, remove_stop_file
from oelm_lib.runs.timing import Budget
from oelm_lib.training import checkpoint, distributed
from oelm_lib.training.console import Console
from oelm_lib.training.device import device_name, memory_errors
from oelm_lib.training.progress import Progress
from oelm_lib.training.sampling import Sampler
from oelm_lib.training.state import TrainingState
from oelm_lib.training.time_trial import slow_warning


class Session:
    """A run that is being trained: its state, and its files, clocks and status.

    Made by `open_session`.

    Attributes:
        state: All that decides how the run continues.
        windows: Windows of the validation split.
        subset: Numbers of the windows that the regular evaluations score.
    """

    def __init__(
        self,
        state: TrainingState,
        budget: Budget,
        status: Status,
        recorder: Recorder,
        stop_requested: StopRequest,
        console: Console,
    ):
        self.state, self.run, self.cfg = state, state.run, state.cfg
        self.budget, self.status, self.recorder = budget, status, recorder
        self.stop_requested, self.console = stop_requested, console
        corpus, length = self.run.corpus, self.cfg.model.max_seq_len
        self.saver = checkpoint.Saver(state.asynchronous, self.run.lock.check)
        self.sampler = Sampler(state)
        self.windows = EvalWindows(corpus.tokens("val"), length, state.device, corpus.recall)
        self.subset = self.windows.subset(self.cfg.train.eval_tokens)
        windows = len(self.subset), self.windows.count
        self.progress = Progress(self.cfg, budget, state.step, len(state.evals), windows)

    def stopping(self) -> bool:
        """Whether to save and stop now; all processes of the run get the same answer."""
        state, interval = self.state, self.cfg.machine.log_interval
        return distributed.agree(self.stop_requested(), state.step, interval, state.device)

    def memory_bytes(self) -> int:
        """Return the peak of the memory reserved on the GPU; on a CPU the resident memory."""
        if self.state.device.type == "cuda":
            return torch.cuda.max_memory_reserved(self.state.device)
        return psutil.Process().memory_info().rss

    def announce(self, verb: str) -> None:
        """Print and record the warnings, the current step and the device."""
        state, device = self.state, device_name(self.state.device)
        self.status.update(
            step=state.step,
            device=device,
            evals=state.evals,
            best=state.best,
            warnings=state.warnings,
        )
        for text in state.warnings:
            self.console.line(f"Warning: {text}")
        steps = f"{state.step:,} of {self.cfg.train.max_steps:,}"
        self.console.line(f"{self.run.name} {verb} at step {steps} on {device}")


@contextlib.contextmanager
def open_session(run: Run, on_progress: Callable[[bool], None] | None = None) -> Iterator[Session]:
    """Open a run for training: locked, restored from its newest checkpoint, its end recorded.

    However the block ends, status.json says how, and the lock is released. A disk that refuses a
    file and a GPU whose memory is full are reported as UserError.

    Args:
        on_progress: As for `Console`.

    Raises:
        UserError: Another process writes the run, or it cannot be continued.
    """
    run.lock.acquire()  # before anything else: a refused process must not touch the other's files
    budget, stop = Budget(), StopRequest(run.path)
    with contextlib.ExitStack() as stack:
        stack.callback(run.lock.release)
        stack.enter_context(on_stop(stop.on_signal))
        status = stack.enter_context(_recorded_end(run))
        stack.enter_context(memory_errors(run.path))
        with budget("setup"):
            state, offsets = _restored_state(run, budget, status)
        with budget("compile"):
            state.compile()
        with budget("setup"):
            recorder = _begin_record(state, offsets)
            stack.callback(recorder.close)
            session = Session(state, budget, status, recorder, stop, Console(on_progress))
        session.announce("continues" if offsets else "starts")
        try:
            yield session
        except BaseException as error:
            with contextlib.suppress(OSError, LockLost):
                recorder.note(f"FAILED at step {state.step}: {_one_line(error, run)}")
            raise
        finally:
            status.update(write=False, step=state.step)
            with contextlib.suppress(Exception):  # an error of the block is the one to report
                session.saver.wait()


def _restored_state(
    run: Run, budget: Budget, status: Status
) -> tuple[TrainingState, dict[str, int]]:
    """Return the training state, and the lengths of the append-only files at its checkpoint.

    The lengths are {} where the run begins.
    """
    processes = run.config.machine.devices
    if processes != distributed.size():
        raise UserError(
            f"machine.devices = {processes}, but this is one process; use oelm run, or"
            " machine.devices=1"
        )
    _remove_leftovers(run)
    latest = checkpoint.load_latest(run.path)
    if latest.state:
        status.update(step=latest.state["step"])
    state, offsets = TrainingState(run), {}
    if latest.state:
        state.load_state_dict(latest.state, latest.path)
        offsets = _restore_record(latest, budget)
        if latest.warning:  # so that the next save does not keep it as latest.prev.pt
            (run.path / "latest.pt").unlink(missing_ok=True)
    if latest.warning:
        state.warnings.append(latest.warning)
    return state, offsets


def _remove_leftovers(run: Run) -> None:
    """Remove what a killed process left, and the notebook and page of an earlier session."""
    for path in run.path.glob(".*.tmp"):
        if path.is_dir() and not path.is_symlink():  # of an export of the weights
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)
    for name in EXECUTED:
        (run.path / name).unlink(missing_ok=True)


def _begin_record(state: TrainingState, offsets: dict[str, int]) -> Recorder:
    """Record the session in config.yaml, collect its warnings, open the append-only files."""
    run = state.run
    changes = run.record_session(state.step, state.resolved(), state.parameter_counts)
    recorder = Recorder(run.path, offsets, run.lock.check)
    read_metrics(run)  # reports a broken row now, not at the end of training
    slow = None if offsets else slow_warning(state)
    too_short = (_warmup_warning(run.config), run.config.freeze_problem)
    warnings = (*too_short, *changes, recorder.missing_lines(), slow)
    state.warnings += [text for text in warnings if text]
    return recorder


def _restore_record(latest: checkpoint.Latest, budget: Budget) -> dict[str, int]:
    """Add the time of earlier sessions to the budget; return lengths of append-only files."""
    try:
        record = latest.state["record"]
        budget.resume(**record["time"])
        return {name: int(length) for name, length in record["offsets"].items()}
    except checkpoint.BROKEN as error:
        raise checkpoint.unusable(latest.path, error) from None


@contextlib.contextmanager
def _recorded_end(run: Run) -> Iterator[Status]:
    """Keep status.json while the block runs, and write into it how the block ended."""
    status = Status(run.path, run.lock.check, step=0, max_steps=run.config.train.max_steps)
    try:
        yield status
    except BaseException as error:
        _withdraw_stop(run)
        status.close(state="failed", error=_one_line(error, run))
        if isinstance(error, OSError):
            raise disk_error(error, run.path) from None
        raise
    else:
        _withdraw_stop(run)
        status.close(state="done" if run.finished else "stopped")


def _withdraw_stop(run: Run) -> None:
    """Remove the STOP file where the run is still this process' own."""
    with contextlib.suppress(OSError, LockLost):
        run.lock.check()
        remove_stop_file(run.path)


def _one_line(error: BaseException, run: Run) -> str:
    """The error as users and status.json see it."""
    if isinstance(error, OSError):
        error = disk_error(error, run.path)
    if isinstance(error, UserError):
        return str(error)
    return f"{type(error).__name__}: {error}".splitlines()[0]  # a CUDA error has several


def _warmup_warning(cfg: Experiment) -> str | None:
    """A warning where the learning rate never reaches its peak."""
    warmup, steps = cfg.optim.warmup_steps, cfg.train.max_steps
    if warmup <= steps:
        return None
    return (
        f"optim.warmup_steps = {warmup:,} is longer than train.max_steps = {steps:,}:"
        " the peak rate is never reached"
    )
