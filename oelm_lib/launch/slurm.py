"""Many runs on a cluster: the matrix as one Slurm array through submitit, and a report when it has ended."""

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
from oelm_lib.data.corpus import open_corpus
from oelm_lib.errors import UserError
from oelm_lib.launch.local import Job, mark_queued, run_command
from oelm_lib.runs.folder import check_fit
from oelm_lib.runs.process import process_start

STOP_SIGNAL = "USR1"
NOTICE_SECONDS = 120
"""How long before the end of its time a job is asked to save and leave."""
MOST_RESTARTS = 100
REPORT_MINUTES = 30


class Command:
    """A command as a job that Slurm may stop and start anew: asked to leave, it passes that on and waits."""

    def __init__(self, command: list[str]):
        self._command = command
        self._process: subprocess.Popen | None = None

    def __call__(self) -> None:
        """Run the command to its end, which must be a good one."""
        self._process = subprocess.Popen(self._command)
        while self._process.poll() is None:  # wait() would hold a lock that checkpoint() needs
            time.sleep(0.2)
        if self._process.returncode:
            raise SystemExit(self._process.returncode)

    def checkpoint(self) -> Any:
        """Called by submitit before it requeues the job: let the command save; it goes on from there."""
        import submitit

        end = time.monotonic() + NOTICE_SECONDS
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
    """Submit the runs that are not done as one array; returns what was, or would be, submitted.

    Args:
        sbatch: Options of a job, e.g. {"gres": "gpu:1", "time": "04:00:00"}.
        parallel: Jobs at a time, at most.
        report: Whether a page that compares the experiments is made after the array.

    Raises:
        UserError: A corpus is not prepared, there is no Slurm here, or Slurm refuses.
    """
    going = [job for job in jobs if not job.done]
    if sbatch.get("gres", "").startswith("gpu"):
        overrides = {"machine.device": "cuda"} | overrides
    for exp in dict.fromkeys(job.exp for job in going):
        cfg = config.load_config(exp, overrides)
        check_fit(cfg, open_corpus(cfg.data.corpus, cfg.data.tokenizer))
    shown = ", ".join(f"{key}={value}" for key, value in sbatch.items())
    lines = [
        f"{len(jobs)} runs: {len(jobs) - len(going)} done before, {len(going)} in one array ({shown})"
    ]
    target = " ".join(dict.fromkeys(job.exp for job in jobs))
    if dry_run or not going:
        lines += [shlex.join(run_command(job, overrides)) for job in going]
        return lines + [f"then: oelm report {target!r}"] * bool(report and going)
    array = _submit(sbatch, [run_command(job, overrides) for job in going], parallel)
    for job, number in zip(going, array, strict=True):
        mark_queued(job, job=number)
        lines.append(f"{job.name}: job {number}")
    if report:
        after = {key: value for key, value in sbatch.items() if key != "gres"}
        after |= {"time": REPORT_MINUTES, "dependency": f"afterany:{array[0].split('_')[0]}"}
        (number,) = _submit(after, [[sys.executable, "-m", "oelm_lib.cli", "report", target]])
        lines.append(f"report: job {number}")
    return [*lines, f"logs in {_folder()}; follow with oelm status --watch, stop with scancel"]


def _folder() -> Path:
    return config.outputs_dir() / "slurm"


def _submit(sbatch: dict[str, Any], commands: list[list[str]], parallel: int = 1) -> list[str]:
    """Submit an array; returns the job of each command."""
    if shutil.which("sbatch") is None:
        raise UserError(
            "no Slurm here: sbatch isn't found; submit from a login node, or use oelm run"
        )
    os.environ["SUBMITIT_PREEMPT_SIGNAL"] = (
        STOP_SIGNAL  # read when submitit is imported, here and in the job
    )
    try:
        import submitit
    except ImportError:
        raise UserError("oelm submit needs submitit; pip install -e '.[slurm]'") from None
    executor = submitit.SlurmExecutor(_folder(), max_num_timeout=MOST_RESTARTS)
    executor.update_parameters(
        job_name="oelm", array_parallelism=parallel, additional_parameters=sbatch
    )
    executor.update_parameters(signal_delay_s=NOTICE_SECONDS, stderr_to_stdout=True)
    try:
        with contextlib.redirect_stderr(io.StringIO()):  # submitit prints what it then raises
            return [
                job.job_id
                for job in executor.submit_array([Command(command) for command in commands])
            ]
    except submitit.core.utils.FailedJobError as error:
        reason = str(error).strip().splitlines()[-1].removeprefix("sbatch: error: ")
        raise UserError(
            f"Slurm refuses: {reason}; see sinfo for partitions and their limits"
        ) from None
