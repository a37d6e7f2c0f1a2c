"""One run in several processes of this machine, through torch's elastic launch."""

import contextlib
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from oelm_lib.errors import UserError
from oelm_lib.files import read_json
from oelm_lib.launch.processes import child_error, exit_text, kill_tree
from oelm_lib.runs.folder import Run
from oelm_lib.runs.logs import NOTEBOOK_LOG
from oelm_lib.runs.reading import state
from oelm_lib.runs.schema import ACTIVE

POLL_SECONDS = 0.5
STOP_SECONDS = 10.0
"""How long processes that do not train yet have to end by themselves after a stop."""
LOCAL_ONLY = {"GLOO_SOCKET_IFNAME": "lo", "NCCL_SOCKET_IFNAME": "lo"}
"""The processes run on one machine and communicate over its loopback interface."""


def train_in_processes(
    run: Run, overrides: str, stop_asked: Callable[[], bool] = lambda: False
) -> None:
    """Train a run in machine.devices processes until it is done or stopped.

    Args:
        overrides: As `oelm run --set` takes them, in one string.
        stop_asked: Whether the run was asked to stop. Processes that train see its STOP file; those
            that cannot (they have not met, or hang) are ended.

    Raises:
        UserError, RuntimeError: One of the processes failed, and so all have ended.
    """
    cfg = run.config
    devices = cfg.machine.devices
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    # By default the processes look for each other under the host name, which may not resolve.
    command += ["--local-addr=127.0.0.1", f"--nproc-per-node={devices}"]
    module = ["-m", "oelm_lib.training.shared_process", cfg.id, str(run.seed), overrides]
    with tempfile.TemporaryDirectory() as errors, open(run.path / NOTEBOOK_LOG, "ab") as log:
        # In a session of its own: Ctrl-C must not reach the processes, which see the STOP file.
        process = subprocess.Popen(
            [*command, f"--log-dir={errors}", *module],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env=(LOCAL_ONLY if sys.platform == "linux" else {}) | os.environ,
            start_new_session=True,
        )
        ended_here = wait_for_processes(process, stop_asked, lambda: state(run) in ACTIVE)
        error = first_error(Path(errors))
    if not process.returncode or run.finished or ended_here:
        return
    if isinstance(error, UserError):
        raise error
    reason = error or f"killed, most often because memory ran out ({exit_text(process.returncode)})"
    raise RuntimeError(
        f"one of its {devices} processes ended: {reason}; see {run.path / NOTEBOOK_LOG}"
    )


def wait_for_processes(
    process: subprocess.Popen,
    stop_asked: Callable[[], bool],
    training: Callable[[], bool],
    patience: float = STOP_SECONDS,
) -> bool:
    """Wait for the launcher of processes; after a stop, end those that do not train.

    Args:
        stop_asked: Whether the run was asked to stop.
        training: Whether the processes train, so that they see the request themselves.
        patience: Seconds that others have to end after the request, and after each signal.

    Returns:
        Whether this function ended them.
    """
    asked_at, ended_here = None, False
    while process.poll() is None:
        time.sleep(min(POLL_SECONDS, patience))
        if not stop_asked():
            continue
        asked_at = asked_at or time.monotonic()
        if time.monotonic() - asked_at > patience and not training():
            ended_here = True
            process.terminate()  # torch's launcher ends its processes
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(patience)
            kill_tree(process.pid)
    return ended_here


def first_error(folder: Path) -> Exception | None:
    """Return the error of a process that the others follow from, or None where none is recorded.

    It is the first one; but a UserError never follows from the end of another process, and two
    files can bear one time.

    Args:
        folder: Log folder of torch's launcher, with an error.json of each process that failed.
    """
    records = sorted(folder.rglob("error.json"), key=lambda path: path.stat().st_mtime_ns)
    errors = (_recorded_error(path) for path in records)
    return min(errors, key=lambda error: not isinstance(error, UserError), default=None)


def _recorded_error(path: Path) -> Exception:
    """Return the error in an error.json of torch's launcher."""
    kind, _, message = read_json(path)["message"]["message"].partition(": ")
    return child_error(kind, message)
