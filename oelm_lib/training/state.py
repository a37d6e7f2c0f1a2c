"""Training state: everything a run needs to continue, as stored in a checkpoint."""

from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from oelm_lib.data import Batches
from oelm_lib.errors import UserError
from oelm_lib.model.dropout import seed_dropout
from oelm_lib.model.gpt import GPT
from oelm_lib.runs.folder import Run, config_differences
from oelm_lib.training import checkpoint, compiler, distributed, optim
from oelm_lib.training.device import (
    device_name,
    gpu_problem,
    is_asynchronous,
    prepare_device,
)
from oelm_lib.training.freeze import FreezeProof
from oelm_lib.training.health import Health
from oelm_lib.training.optim import make_optimizer
from oelm_lib.training.precision import resolve_precision


class TrainingState:
    """Model, optimizer, random generators and position of a run.

    The constructor makes the state at step 0 and writes no file. Only dropout draws from torch's
    default generator, which is seeded here; batches are a function of seed and step.

    Attributes:
        step: Optimizer updates done.
        asynchronous: Whether the host waits when it reads a number from the device.
        model: The model itself; evaluation uses this one.
        training_model: The model as the training step calls it: compiled, and with gradients
            averaged where several processes share the run.
        loss_sum: Sum of the finite losses since the last log point, float64, on the device.
        loss_steps: Number of those losses, on the device.
        best: {step, loss} of the evaluation with the least loss, or None before the first.
        evals: [step, loss] of each evaluation, in nats per token.
        proof: SHA-256 of the frozen tensors.
        warnings: What a user should know about this state, one line each.

    Raises:
        UserError: The device is not there, or the optimizer's groups do not fit the model.
    """

    def __init__(self, run: Run):
        cfg = run.config
        self.run = run
        self.cfg = cfg
        self.device = prepare_device(cfg.machine)
        self.asynchronous = is_asynchronous(self.device)
        self.precision, warning = resolve_precision(cfg.train.precision, self.device)
        cpu_by_default = cfg.machine.device == "auto" and self.device.type == "cpu"
        unused_gpu = gpu_problem() if cpu_by_default else None
        self.warnings = [text for text in (warning, unused_gpu) if text]
        seed_dropout(run.seed)
        self.model = GPT(cfg.model, run.seed).to(self.device)
        self.optimizer = make_optimizer(self.model, cfg.optim)
        self.parameter_counts = self.model.parameter_counts()
        self.compiled = compiler.is_enabled(cfg.machine.compile, self.device)
        self._local_model = self.model
        if self.compiled:
            self._local_model = compiler.compile_model(self.model, self.device)
        self.batches = Batches(
            run.corpus.tokens("train"),
            cfg.model.max_seq_len,
            cfg.train.batch_size,
            run.seed,
            self.device,
            run.corpus.recall,
        )
        self.health = Health(self.precision)
        self.step = 0
        self.loss_sum = torch.zeros((), dtype=torch.float64, device=self.device)
        self.loss_steps = torch.zeros((), dtype=torch.int64, device=self.device)
        self.best: dict[str, Any] | None = None
        self.evals: list[list[float]] = []
        self._set_frozen(0)
        self.proof = FreezeProof(self.model)
        self.proof.start(0)

    @property
    def tokens(self) -> int:
        """Tokens seen in training."""
        return self.step * self.cfg.step_tokens

    @property
    def is_last_step(self) -> bool:
        """Whether the run has made all of its steps."""
        return self.step == self.cfg.train.max_steps

    def compile(self) -> None:
        """Compile the training step in every freeze state that is still to come.

        Where `machine.compile` is auto and compilation fails, training goes on uncompiled, with a
        warning.

        Raises:
            UserError: Compilation fails and `machine.compile` is on.
        """
        if not self.compiled:
            return
        batch, cfg = self.next_batch(), self.cfg.model
        switches = {cfg.freeze_from, cfg.freeze_until} - {None}
        steps = {self._freeze_start, *(step for step in switches if step >= self.step)}
        try:
            for step in steps:
                self._set_frozen(step)
                compiler.warm_up(partial(self._pass, batch), self.device)
        except (torch.OutOfMemoryError, torch.AcceleratorError):
            raise
        except Exception as error:  # compilers fail in many ways
            self._give_up_compiling(error)
        self._set_frozen(self._freeze_start)

    def _pass(self, batch: tuple[Tensor, Tensor]) -> None:
        """Run forward and backward, and drop the gradients; dropout still draws its numbers."""
        optim.backward(self.training_model, self.precision, batch)
        self.optimizer.zero_grad(set_to_none=True)

    def _give_up_compiling(self, error: Exception) -> None:
        """Train uncompiled, with a warning, where `machine.compile` leaves the choice."""
        reason = f"{type(error).__name__}: {error}".splitlines()[0][:200]
        if self.cfg.machine.compile == "on":
            raise UserError(
                f"machine.compile = on: torch.compile failed ({reason}); use machine.compile=off"
            ) from error
        self.optimizer.zero_grad(set_to_none=True)
        self.compiled, self._local_model = False, self.model
        self.warnings.append(
            f"torch.compile failed ({reason}); this run is trained uncompiled"
            " (machine.compile=off skips the attempt)"
        )

    @property
    def _freeze_start(self) -> int:
        """First step of the current interval of the freeze."""
        return self.proof.intervals[-1]["from_step"]

    def next_batch(self) -> tuple[Tensor, Tensor]:
        """Return tokens and targets of the next step, each (B / processes, T) int64."""
        return distributed.shard(self.batches(self.step))

    def apply_freeze(self) -> None:
        """Freeze or unfreeze W_q and W_k for the next step; each interval gets its own digests."""
        cfg = self.cfg.model
        if self.step and cfg.freezes_at(self.step) != cfg.freezes_at(self.step - 1):
            self.proof.end(self.step)
            self._set_frozen(self.step)
            self.proof.start(self.step)

    def _set_frozen(self, step: int) -> None:
        """Set which tensors are frozen at this step, without a proof."""
        self.model.set_frozen(step)
        # Processes share the gradients of what was trained when the model was wrapped.
        self.training_model = distributed.parallel(self._local_model)

    def backward(self, batch: tuple[Tensor, Tensor]) -> Tensor:
        """Run forward and backward; return the batch's mean loss in nats, on the device."""
        if self.compiled:
            compiler.start_step(self.device)
        loss = distributed.mean(optim.backward(self.training_model, self.precision, batch))
        finite = loss.isfinite()  # an fp16 loss may overflow; its step is skipped
        self.loss_sum += torch.where(finite, loss, 0.0)
        self.loss_steps += finite
        return loss

    def reset_interval(self) -> None:
        """Begin a new mean of the training loss."""
        self.loss_sum = torch.zeros_like(self.loss_sum)
        self.loss_steps = torch.zeros_like(self.loss_steps)

    def clip(self, loss: Tensor) -> Tensor:
        """Check and clip the gradients; return their norm before that, on the device.

        Where loss or norm is not finite, the gradients become NaN and `update` skips the step.
        """
        norm = optim.gradient_norm(self.optimizer, self.precision)
        checked = self.health.watch(loss, norm)
        optim.clip_gradients(self.optimizer, self.cfg.optim.grad_clip, checked)
        return norm

    def update(self) -> float:
        """Update the weights and count the step; return its learning rate (of the common group)."""
        rates = optim.learning_rates(self.step, self.cfg.optim, self.cfg.train.max_steps)
        optim.update(self.optimizer, self.precision, rates)
        self.step += 1
        return rates[0]

    def advance(self) -> None:
        """Make one training step without recording anything."""
        self.apply_freeze()
        self.clip(self.backward(self.next_batch()))
        self.update()

    def state_dict(self, with_optimizer: bool = True) -> dict[str, Any]:
        """Return the state as tensors and plain values.

        Args:
            with_optimizer: False leaves out the optimizer's moments, two thirds of the bytes: the
                model can be read from it, training cannot continue.
        """
        gpu = self.device.type == "cuda"
        return {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict() if with_optimizer else None,
            "scaler": self.precision.scaler.state_dict(),
            "health": self.health.numbers,
            "step": self.step,
            "best": self.best,
            "evals": self.evals,
            "frozen": self.proof.intervals,
            "interval": {"loss": self.loss_sum, "steps": self.loss_steps},
            "random": {
                "cpu": torch.get_rng_state(),
                "cuda": torch.cuda.get_rng_state(self.device) if gpu else None,
            },
            "experiment": self.cfg.science,
            "seed": self.run.seed,
            "splits": self.run.corpus.manifest["splits"],
        }

    def load_state_dict(self, saved: dict[str, Any], path: Path) -> None:
        """Continue from a checkpoint.

        Args:
            saved: What `state_dict` returned, read from a file.
            path: That file, named in messages.

        Raises:
            UserError: It is not a checkpoint of this run, or its frozen tensors have changed.
        """
        try:
            differences = config_differences(
                self.run, saved["experiment"], saved["seed"], saved["splits"]
            )
            if not differences:
                self._load(saved)
        except (torch.OutOfMemoryError, torch.AcceleratorError):
            raise
        except checkpoint.BROKEN as error:
            raise checkpoint.unusable(path, error) from None
        if differences:
            raise UserError(
                f"{path}: made with another config ({differences}); go back to that config, or"
                " start again: oelm run ID --fresh"
            )
        if not self.proof.unchanged():
            raise UserError(
                f"{path}: its frozen tensors are not those with which the run started; start again:"
                " oelm run ID --fresh"
            )

    def _load(self, saved: dict[str, Any]) -> None:
        self.model.load_state_dict(saved["model"])
        self.optimizer.load_state_dict(saved["optimizer"])
        if saved["scaler"]:  # empty where the run was fp32 on a CPU
            self.precision.scaler.load_state_dict(saved["scaler"])
        self.health.load(saved["health"].to(self.device), saved["step"])
        self.step, self.best, self.evals = saved["step"], saved["best"], saved["evals"]
        self.proof.intervals = saved["frozen"]
        self._set_frozen(self._freeze_start)
        self.loss_sum = saved["interval"]["loss"].to(self.device)
        self.loss_steps = saved["interval"]["steps"].to(self.device)
        torch.set_rng_state(saved["random"]["cpu"])
        if self.device.type == "cuda" and saved["random"]["cuda"] is not None:
            torch.cuda.set_rng_state(saved["random"]["cuda"], self.device)

    def resolved(self) -> dict[str, Any]:
        """Return the values that the machine keys resolved to."""
        return {
            "device": str(self.device),
            "device_name": device_name(self.device),
            "precision": self.precision.name,
            "threads": torch.get_num_threads(),
            "compile": self.compiled,
            "deterministic": self.cfg.machine.deterministic,
        }


def resumed_state(run: Run) -> TrainingState:
    """Return the state at the newest intact checkpoint of a run; without one, at step 0."""
    state, latest = TrainingState(run), checkpoint.load_latest(run.path)
    if latest.state:
        state.load_state_dict(latest.state, latest.path)
    return state
