"""Many runs on a cluster: one Slurm array through submitit, and a report when it has ended."""

import contextlib
import io
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from oelm_lib import config
from oelm_lib.errors import UserError
from oelm_lib.launch.jobs import Job, has_begun, job_command, mark_queued
from oelm_lib.runs.corpus_fit import open_fitting_corpus
from oelm_lib.runs.names import arm_id
from oelm_lib.runs.process import process_start
from oelm_lib.units import counted

STOP_SIGNAL = "USR1"
NOTICE_SECONDS = 120
"""How long before its time limit a job is asked to save and stop."""
MOST_RESTARTS = 100
REPORT_MINUTES = 30


class Command:
    """A command as a Slurm job; asked to stop, it passes the signal on and waits."""

    def __init__(self, command: list[str]):
        self._command = command
        self._process: subprocess.Popen | None = None

    def __call__(self) -> None:
        """Run the command to its end; another exit code than 0 fails the job."""
        self._process = subprocess.Popen(self._command)
        while self._process.poll() is None:  # wait() would hold a lock that checkpoint() needs
            time.sleep(0.2)
        if self._process.returncode:
            raise SystemExit(self._process.returncode)

    def checkpoint(self) -> Any:
        """Let the command save, and return the job that continues it; submitit requeues that."""
        import submitit

        end = time.monotonic() + NOTICE_SECONDS
        if self._process is not None:  # else the signal came before the command began
            self._process.send_signal(getattr(signal, f"SIG{STOP_SIGNAL}"))
            while process_start(self._process.pid) is not None and time.monotonic() < end:
                time.sleep(0.2)
        return submitit.helpers.DelayedSubmission(Command(self._command))


def submit(
    jobs: list[Job],
    overrides: dict[str, Any],
    sbatch: dict[str, Any],
    parallel: int,
    report: bool,
    dry_run: bool,
) -> list[str]:
    """Submit the runs that are not done as one array.

    Args:
        sbatch: Options of a job, e.g. {"gres": "gpu:1", "time": "04:00:00"}.
        parallel: Concurrent jobs at most.
        report: Whether a page that compares the experiments is made after the array.
        dry_run: Submit nothing.

    Returns:
        Lines that say what was, or would be, submitted.

    Raises:
        UserError: A corpus is not prepared, there is no Slurm here, or Slurm refuses.
    """
    unfinished = [job for job in jobs if not job.done]
    if asks_for_gpu(sbatch):
        # Where torch cannot use the node's GPU, a run then fails and does not train on the CPU.
        overrides = {"machine.device": "cuda"} | overrides
    for exp in dict.fromkeys(job.exp for job in unfinished):
        open_fitting_corpus(config.load_config(exp, overrides))
    done = len(jobs) - len(unfinished)
    options = ", ".join(f"{key}={value}" for key, value in sbatch.items())
    lines = [
        f"{counted(len(jobs), 'run')}: {done} done before, {len(unfinished)} in one array"
        f" ({options})",
    ]
    target = " ".join(dict.fromkeys(arm_id(job.path.parent.name) for job in jobs))
    commands = [job_command(job, overrides) for job in unfinished]
    if dry_run or not unfinished:
        lines += [shlex.join(command) for command in commands]
        if report and unfinished:
            lines.append(f"then: oelm report {target!r}")
        return lines
    numbers = submit_commands(sbatch, commands, parallel)
    for job, number in zip(unfinished, numbers, strict=True):
        if not has_begun(job):  # a cancelled job would leave it `queued`
            mark_queued(job, slurm_job=number)
        lines.append(f"{job.name}: job {number}")
    if report:
        array = numbers[0].split("_")[0]
        lines.append(f"report: job {_submit_report(sbatch, target, array)}")
    return [*lines, f"logs in {logs_folder()}; follow with oelm status --watch, stop with scancel"]


def asks_for_gpu(sbatch: dict[str, Any]) -> bool:
    """Return whether sbatch options ask for a GPU: gres, gpus, gpus-per-node and the like."""
    return any(
        key.startswith("gpus") or (key.startswith(("gres", "tres")) and "gpu" in str(value))
        for key, value in sbatch.items()
    )


def _submit_report(sbatch: dict[str, Any], target: str, array: str) -> str:
    """Submit the comparison page, made when the array has ended; returns its job number."""
    options = {key: value for key, value in sbatch.items() if not asks_for_gpu({key: value})}
    options |= {"time": REPORT_MINUTES, "dependency": f"afterany:{array}"}
    (number,) = submit_commands(options, [[sys.executable, "-m", "oelm_lib.cli", "report", target]])
    return number


def logs_folder() -> Path:
    """Return the folder of the jobs' logs."""
    return config.outputs_dir() / "slurm"


def submit_commands(
    sbatch: dict[str, Any], commands: list[list[str]], parallel: int = 1
) -> list[str]:
    """Submit an array; returns the job number of each command."""
    if shutil.which("sbatch") is None:
        raise UserError(
            "no Slurm here: sbatch is not found; submit from a login node, or use oelm run"
        )
    # submitit reads this when it is imported, here and in the job.
    os.environ["SUBMITIT_PREEMPT_SIGNAL"] = STOP_SIGNAL
    try:
        import submitit
    except ImportError:
        raise UserError("oelm submit needs submitit; pip install -e '.[slurm]'") from None
    executor = submitit.SlurmExecutor(logs_folder(), max_num_timeout=MOST_RESTARTS)
    executor.update_parameters(
        job_name="oelm", array_parallelism=parallel, additional_parameters=sbatch
    )
    executor.update_parameters(signal_delay_s=NOTICE_SECONDS, stderr_to_stdout=True)
    try:
        with contextlib.redirect_stderr(io.StringIO()):  # submitit prints what it then raises
            jobs = executor.submit_array([Command(command) for command in commands])
    except submitit.core.utils.FailedJobError as error:
        reason = str(error).strip().splitlines()[-1].removeprefix("sbatch: error: ")
        raise UserError(
            f"Slurm refuses: {reason}; see sinfo for partitions and their limits"
        ) from None
    return [job.job_id for job in jobs]
