"""One run in several processes of this machine, through torch's elastic launch."""

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Callable

from oelm_lib.errors import UserError
from oelm_lib.launch.processes import kill_tree
from oelm_lib.runs.folder import Run
from oelm_lib.runs.reading import ACTIVE, read_status, read_summary, state

POLL_SECONDS = 0.5
STOP_SECONDS = 10.0
"""How long processes that do not train yet have to leave after a stop."""
LOCAL_ONLY = {"GLOO_SOCKET_IFNAME": "lo", "NCCL_SOCKET_IFNAME": "lo"}
"""The processes share a machine, so they need neither its name nor its network."""


def train_in_processes(
    run: Run, overrides: str, stop_asked: Callable[[], bool] = lambda: False
) -> None:
    """Train a run in machine.devices processes until it is done or stopped.

    Args:
        overrides: As `oelm run --set` takes them, in one string.
        stop_asked: Whether the run was asked to stop. Processes that train see its STOP file; those
            that cannot (they have not met, or hang) are ended.

    Raises:
        UserError: The batch cannot be shared evenly, or the run failed.
    """
    cfg = run.config
    devices, batch_size = cfg.machine.devices, cfg.train.batch_size
    if batch_size % devices:
        raise UserError(
            f"machine.devices = {devices} does not divide train.batch_size = {batch_size};"
            " use a divisor"
        )
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    # By default the processes look for each other under the host name, which may not resolve.
    command += ["--local-addr=127.0.0.1", f"--nproc-per-node={devices}"]
    command += ["-m", "oelm_lib.training.worker", cfg.id, str(run.seed), overrides]
    with open(run.path / "notebook.log", "ab") as log:
        # A session of its own: Ctrl-C reaches the run by its STOP file, not every process at once.
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env=(LOCAL_ONLY if sys.platform == "linux" else {}) | os.environ,
            start_new_session=True,
        )
        wait_for_processes(process, stop_asked, lambda: state(run) in ACTIVE)
    if process.returncode and not read_summary(run) and state(run) != "stopped":
        if stop_asked():
            return
        status = read_status(run) or {}
        reason = status.get("error") or f"exit code {process.returncode}"
        raise UserError(
            f"{run.name}: its {devices} processes ended: {reason}; see notebook.log in {run.path}"
        )


def wait_for_processes(
    process: subprocess.Popen,
    stop_asked: Callable[[], bool],
    training: Callable[[], bool],
    patience: float = STOP_SECONDS,
) -> None:
    """Wait for the launcher of processes; after a stop, end those that do not train.

    Args:
        stop_asked: Whether the run was asked to stop.
        training: Whether the processes train, so that they see the request themselves.
        patience: Seconds that others have to leave after the request, and after each signal.
    """
    asked_at = None
    while process.poll() is None:
        time.sleep(min(POLL_SECONDS, patience))
        if not stop_asked():
            continue
        asked_at = asked_at or time.monotonic()
        if time.monotonic() - asked_at > patience and not training():
            process.terminate()  # torch's launcher ends its workers
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(patience)
            kill_tree(process.pid)
