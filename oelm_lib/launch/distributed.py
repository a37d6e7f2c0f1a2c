"""One run in several processes, through torch's elastic launch; the notebook then shows what they did."""

import subprocess
import sys

from oelm_lib.errors import UserError
from oelm_lib.runs.folder import Run
from oelm_lib.runs.reading import read_status, read_summary, state


def train_in_processes(run: Run, overrides: str) -> None:
    """Train a run in machine.devices processes of this machine, until it is done or stopped.

    Raises:
        UserError: The batch cannot be shared evenly, or the run failed: what status.json says.
    """
    cfg = run.config
    devices, batch_size = cfg.machine.devices, cfg.train.batch_size
    if batch_size % devices:
        raise UserError(
            f"machine.devices = {devices} does not divide train.batch_size = {batch_size}; use a divisor"
        )
    command = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        f"--nproc-per-node={devices}",
    ]
    command += ["-m", "oelm_lib.training.worker", cfg.id, str(run.seed), overrides]
    with open(run.path / "notebook.log", "a") as log:
        # Its own session: a Ctrl-C is told to the run by its STOP file, not to every process at once.
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
        )
    if done.returncode and not read_summary(run) and state(run) != "stopped":
        reason = (read_status(run) or {}).get("error") or f"exit code {done.returncode}"
        raise UserError(
            f"{run.name}: its {devices} processes ended: {reason}; see notebook.log in {run.path}"
        )
