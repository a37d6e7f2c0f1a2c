"""Numbers that are not finite stop a run before its update, and leave what is needed to look at the step again."""

import torch
from torch import Tensor

from oelm_lib.data.batches import Batches
from oelm_lib.errors import UserError
from oelm_lib.files import write_json
from oelm_lib.runs.folder import Run
from oelm_lib.runs.reading import read_metrics
from oelm_lib.training.precision import Precision

MIN_SCALE = 1e-4
"""An fp16 loss scale below this (thirty halvings in a row) is no overflow: the gradients are not numbers."""


class Guard:
    """Watches the loss and the gradient norm of every step.

    Gradients that overflow under fp16 are the scaler's business. On a GPU asking costs a synchronisation, so the
    count of good steps stays there, every update after a bad step is skipped on the device, and the next log point
    or save raises.

    Args:
        step: Steps done, all of them good.
    """

    def __init__(self, run: Run, batches: Batches, precision: Precision, step: int):
        self._run, self._batches, self._precision = run, batches, precision
        self._good = torch.tensor(step, device=precision.device)
        self._numbers = torch.zeros(2, device=precision.device)

    def watch(
        self, optimizer: torch.optim.Optimizer, step: int, loss: Tensor, norm: Tensor
    ) -> None:
        """Look at the numbers of step 0, 1, ... before its update. Raises UserError on a CPU, as check does."""
        scaled, first = self._precision.scaler.is_enabled(), self._good == step
        self._numbers = torch.where(first, torch.stack([loss.float(), norm.float()]), self._numbers)
        self._good += first & (loss.isfinite() if scaled else loss.isfinite() & norm.isfinite())
        if not scaled:
            optimizer.found_inf = (self._good <= step).float()
        if self._precision.device.type == "cpu":
            self.check(step + 1)

    def check(self, steps: int) -> None:
        """Raise UserError where one of the first `steps` steps had bad numbers."""
        if (good := int(self._good)) < steps:
            self._stop(good, "")
        if (scale := self._precision.scaler.get_scale()) < MIN_SCALE:
            self._stop(steps - 1, f" at an fp16 loss scale that fell to {scale:.1g}")

    def _stop(self, step: int, where: str) -> None:
        rows = read_metrics(self._run)
        rows = rows[(rows["event"] == "train") & rows["loss"].notna()]
        last = "no finite loss before"
        if len(rows):
            last = f"last finite loss {rows['loss'].iloc[-1]:.4f} at step {rows['step'].iloc[-1]:,}"
        loss, norm = self._numbers.tolist()
        windows = self._batches.window_numbers(step).tolist()
        record = {
            "step": step + 1,
            "windows": windows,
            "last_finite": last,
            "loss": loss,
            "grad_norm": norm,
        }
        write_json(self._run.path / "bad_step.json", record)
        raise UserError(
            f"step {step + 1:,}: loss is {loss:.4g}, gradient norm {norm:.4g}{where}; {last}; the run is kept in"
            f" {self._run.path}, look at the step: oelm replay {self._run.name}; lower optim.learning_rate or use"
            " train.precision=fp32"
        )
