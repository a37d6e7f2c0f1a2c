"""Everything a run holds while it trains: built or restored on entry, told truthfully on exit."""

import contextlib
import signal
import time
from types import TracebackType
from typing import Any

import psutil
import torch

from oelm_lib.config import Experiment
from oelm_lib.data.batches import EvalWindows
from oelm_lib.errors import UserError
from oelm_lib.model.gpt import GPT, parameter_counts
from oelm_lib.runs.folder import Run, disk_error
from oelm_lib.runs.forecast import UNMEASURED, Forecast
from oelm_lib.runs.lock import LockLost
from oelm_lib.runs.metrics import Recorder
from oelm_lib.runs.reading import read_metrics
from oelm_lib.runs.status import Budget, Status, format_duration
from oelm_lib.runs.stop import on_stop
from oelm_lib.seeds import named_seed
from oelm_lib.training import checkpoint
from oelm_lib.training.console import Console
from oelm_lib.training.distributed import SharedBatches, parallel, size
from oelm_lib.training.evaluation import frozen_digest
from oelm_lib.training.guard import Guard
from oelm_lib.training.optim import gradients, learning_rates, make_optimizer, update
from oelm_lib.training.precision import (
    device_name,
    keep_freed_memory,
    resolve_device,
    resolve_precision,
)
from oelm_lib.training.sampling import Sampler
from oelm_lib.training.state import restore

SLOW_SECONDS = 600.0
"""A run projected to take longer than this on a CPU is announced."""


class Session:
    """The live state of a run, as a context manager.

    On entry the model is built or restored from the newest whole checkpoint and the folder's files are opened; on
    exit status.json says how it ended, whatever happened, and the folder is unlocked.
    """

    def __init__(self, run: Run):
        self.run, self.cfg = run, run.config
        self.console = Console()
        self.step = 0
        self.best: dict[str, Any] | None = None
        self.evals: list[list[float]] = []
        self.budget = Budget()
        self.status: Status | None = None
        self.recorder: Recorder | None = None
        self.saver: checkpoint.Saver | None = None
        self.stop_requested = False
        self._handlers = contextlib.ExitStack()

    def __enter__(self) -> "Session":
        try:
            self.run.lock.acquire()  # a refused session must not touch the other one's files
        except OSError as error:
            raise disk_error(error, self.run.path) from None
        self._handlers.enter_context(on_stop(self._on_signal))
        try:
            self._open()
        except BaseException as error:
            self._end(error)
            raise
        return self

    def __exit__(
        self, kind: type | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end(error)

    def build(self, restored: dict[str, Any] | None = None) -> None:
        """Make model, optimizer and batches as at step 0, or as a checkpoint has them; touches no file of the run."""
        run, cfg = self.run, self.cfg
        self.device = resolve_device(cfg.machine.device)
        self.precision, warning = resolve_precision(cfg.train.precision, self.device)
        self.warnings = [text for text in (warning, _warmup_warning(cfg)) if text]
        if self.device.type == "cpu":
            keep_freed_memory()
        if cfg.machine.threads:
            torch.set_num_threads(cfg.machine.threads)
        # Dropout alone draws from torch's default generator.
        torch.manual_seed(named_seed(run.seed, "dropout"))
        self.model = GPT(cfg.model, run.seed).to(self.device)
        self.optimizer = make_optimizer(self.model, cfg.optim)
        self.parameters = parameter_counts(self.model)
        self.model.freeze(0)
        self._compiled = (
            torch.compile(self.model, fullgraph=True) if cfg.machine.compile else self.model
        )
        self.training_model = parallel(self._compiled)
        self.batches = SharedBatches(
            run.corpus.tokens("train"),
            cfg.model.max_seq_len,
            cfg.train.batch_size,
            run.seed,
            self.device,
            run.corpus.recall,
        )
        self.windows = EvalWindows(
            run.corpus.tokens("val"), cfg.model.max_seq_len, self.device, run.corpus.recall
        )
        self.subset = self.windows.subset(cfg.train.eval_tokens)
        self.interval = {
            "loss": torch.zeros((), dtype=torch.float64, device=self.device),
            "steps": 0,
        }
        self.frozen: list[dict[str, Any]] = []
        self._open_proof()
        if restored:
            restore(self, restored)

    def _open(self) -> None:
        """Build or restore the run, and open its files; what fails from the first status on is told in it."""
        run, cfg = self.run, self.cfg
        for leftover in run.path.glob(".*.tmp"):  # of a process that was killed
            leftover.unlink(missing_ok=True)
        restored, lost = checkpoint.load_latest(run.path)
        self.status = Status(
            run.path,
            run.lock,
            step=restored["step"] if restored else 0,
            max_steps=cfg.train.max_steps,
        )
        if cfg.machine.devices != size():
            raise UserError(
                f"machine.devices = {cfg.machine.devices}, but this is one process; use oelm run, or machine.devices=1"
            )
        with self.budget("setup"):
            self.build(restored)
            if not restored:
                run.write_config(self.resolved(), self.parameters)
            self.guard = Guard(run, self.batches, self.precision, self.step)
            self.saver = checkpoint.Saver(in_background=self.device.type == "cuda")
            self.sampler = Sampler(self)
            self.recorder = Recorder(
                run.path, restored["offsets"] if restored else {}, run.lock.check
            )
            read_metrics(run)  # a broken row is told now, not at the end
            self.warnings += [text for text in (lost, self.recorder.lost()) if text]
            if not restored and self.device.type == "cpu":
                self.warnings += self._slow_warning()
        self.status.update(
            step=self.step,
            device=device_name(self.device),
            evals=self.evals,
            best=self.best,
            warnings=self.warnings,
        )
        for text in self.warnings:
            self.console.line(f"Warning: {text}")
        verb = "goes on from step" if restored else "starts at step"
        self.console.line(
            f"{run.name} {verb} {self.step:,} of {cfg.train.max_steps:,} on {device_name(self.device)}"
        )
        self.start_clocks()

    def _end(self, error: BaseException | None) -> None:
        """Say how the session ended, and let go of the folder; a disk that refuses is the user's to mend."""
        told = _told(error, self.run)
        if self.saver:
            with contextlib.suppress(Exception):  # the first error is the one to tell
                self.saver.wait()
        if self.recorder:
            if told:
                with contextlib.suppress(OSError, LockLost):
                    self.recorder.note(f"FAILED at step {self.step}: {told}")
            self.recorder.close()
        with contextlib.suppress(OSError, LockLost):
            self.run.lock.check()
            (self.run.path / "STOP").unlink(missing_ok=True)
        if self.status and told:
            self.status.close(state="failed", step=self.step, error=str(told))
        elif self.status:
            self.status.close(state="done" if self.run.finished else "stopped", step=self.step)
        with contextlib.suppress(OSError):
            self.run.lock.release()
        self._handlers.close()
        if isinstance(told, UserError) and told is not error:
            raise told from None

    def freeze(self) -> None:
        """Freeze or train Q and K as this step asks; each interval has its own proof."""
        step, model = self.step, self.cfg.model
        if step and model.freezes_at(step) != model.freezes_at(step - 1):
            self.frozen = self.prove_freeze()
            self.freeze_as_at(step)
            self._open_proof()

    def advance(self) -> None:
        """Take one step of the loop, without its record."""
        self.freeze()
        batch, clip = self.batches(self.step), self.cfg.optim.grad_clip
        gradients(self.training_model, self.optimizer, self.precision, batch, clip)
        update(
            self.optimizer,
            self.precision,
            learning_rates(self.step, self.cfg.optim, self.cfg.train.max_steps),
        )
        self.step += 1

    def freeze_as_at(self, step: int) -> None:
        """Freeze or train Q and K as the config asks for this step."""
        if self.model.freeze(
            step
        ):  # processes share the gradients of what was trained when they were wrapped
            self.training_model = parallel(self._compiled)

    def prove_freeze(self) -> list[dict[str, Any]]:
        """All intervals, the last closed at this step. Raises RuntimeError where a frozen tensor changed."""
        digest, _ = frozen_digest(self.model)
        last = self.frozen[-1]
        if digest != last["sha256_start"]:
            raise RuntimeError(
                f"frozen tensors changed between steps {last['from_step']} and {self.step}: this is a bug"
            )
        return [*self.frozen[:-1], last | {"to_step": self.step, "sha256_end": digest}]

    def _open_proof(self) -> None:
        digest, tensors = frozen_digest(self.model)
        self.frozen.append({"from_step": self.step, "sha256_start": digest, "tensors": tensors})

    def start_clocks(self) -> None:
        """Begin to measure what steps cost, from what the run's earlier sessions measured."""
        cfg, spent = self.cfg, self.budget.spent
        eval_steps = UNMEASURED * len(self.subset) / cfg.train.batch_size
        if self.evals and spent["step"]:
            eval_steps = spent["evaluation"] / len(self.evals) * self.step / spent["step"]
        whole = 2 * self.windows.windows / len(self.subset)
        self.forecast = Forecast(cfg.train, cfg.machine.log_interval, eval_steps, whole)
        self._timed = self._clocks()

    def stopping(self) -> bool:
        """Whether a signal or a STOP file asks to save and stop."""
        self.stop_requested |= (self.run.path / "STOP").exists()
        return self.stop_requested

    def seconds_per_step(self) -> float:
        """Seconds per step, within steps, since the last call or the start; tells the forecast all that steps cost."""
        step, within, everything = self._timed
        self._timed = self._clocks()
        steps = self.step - step
        self.forecast.step((self._timed[2] - everything) / steps)
        return (self._timed[1] - within) / steps

    def memory_bytes(self) -> int:
        """Most memory held on the GPU so far; on a CPU the process' resident memory."""
        if self.device.type == "cuda":
            return torch.cuda.max_memory_reserved(self.device)
        return psutil.Process().memory_info().rss

    def _clocks(self) -> tuple[int, float, float]:
        """(step, seconds within steps, seconds of everything but evaluations and saves)."""
        spent = self.budget.spent
        return self.step, spent["step"], self.budget.seconds - spent["evaluation"] - spent["saving"]

    def resolved(self) -> dict[str, Any]:
        """What the machine knobs came to."""
        return {
            "device": str(self.device),
            "device_name": device_name(self.device),
            "precision": self.precision.name,
            "threads": torch.get_num_threads(),
            "compile": self.cfg.machine.compile,
        }

    def _slow_warning(self) -> list[str]:
        """One line with the projected time where a CPU will take long."""
        steps, batch_size = self.cfg.train.max_steps, self.cfg.train.batch_size
        seconds = self._trial_seconds(1) * batch_size * steps
        if seconds > SLOW_SECONDS:
            # One window, cold, overstates a small model's step: look again before saying so.
            windows = batch_size if seconds / steps < 1 else 1
            seconds = self._trial_seconds(windows) * batch_size / windows * steps
        if seconds < SLOW_SECONDS:
            return []
        days = f" ({seconds / 86400:.1f} days)" if seconds > 86400 else ""
        return [
            f"on this CPU the {steps:,} steps will take about {format_duration(seconds)}{days}; use a GPU, or rehearse"
            " with fewer steps: overrides train.max_steps=10"
        ]

    def _trial_seconds(self, windows: int) -> float:
        """Seconds of a forward and backward pass over the first windows; leaves no trace."""
        tokens, targets = self.batches(0)
        start = time.perf_counter()
        self.model.eval()  # no dropout: nothing may draw from its generator
        self.model(tokens[:windows], targets[:windows])[1].backward()
        self.model.train()
        self.optimizer.zero_grad(set_to_none=True)
        return time.perf_counter() - start

    def _on_signal(self, number: int, frame: Any) -> None:
        if self.stop_requested and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.stop_requested = True


def _told(error: BaseException | None, run: Run) -> BaseException | str | None:
    """The error as the user is told it: a UserError, or its name and text."""
    if isinstance(error, OSError):
        return disk_error(error, run.path)
    return (
        error
        if error is None or isinstance(error, UserError)
        else f"{type(error).__name__}: {error}"
    )


def _warmup_warning(cfg: Experiment) -> str | None:
    warmup, steps = cfg.optim.warmup_steps, cfg.train.max_steps
    if warmup <= steps:
        return None
    return f"optim.warmup_steps = {warmup:,} is longer than train.max_steps = {steps:,}: the peak rate is never reached"
