"""Jobs: the runs that a command asks for, and what their folders say about them."""

import contextlib
import shutil
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from oelm_lib import config
from oelm_lib.errors import DONE, STOPPED
from oelm_lib.files import write_json
from oelm_lib.launch.processes import exit_text
from oelm_lib.runs import reading
from oelm_lib.runs.lock import is_locked
from oelm_lib.runs.logs import NOTEBOOK_LOG
from oelm_lib.runs.names import experiments_named, run_arguments, run_folder
from oelm_lib.runs.process import this_process
from oelm_lib.runs.schema import ACTIVE
from oelm_lib.units import format_duration, perplexity

QUEUE_FILES = {NOTEBOOK_LOG, "status.json"}
"""Files that a queue itself writes into the folder of a run that has not begun."""
MARKABLE = ("empty", "queued", "stopped", "failed", "dead")
"""States in which a run may be marked as queued."""


@dataclass(frozen=True)
class Job:
    """One run to be made."""

    exp: str
    seed: int
    path: Path
    max_steps: int
    devices: int
    device: str = "auto"
    """machine.device of the experiment."""
    test: bool = False
    """Whether the run is scored on the test split at its end."""

    @property
    def name(self) -> str:
        """Experiment and seed, for messages."""
        return f"{self.exp} seed {self.seed}"

    @property
    def done(self) -> bool:
        """Whether the run is trained and, with `test`, scored on the test split.

        A run that diverged has nothing to score.
        """
        summary = reading.read_or_none(reading.read_summary, self.path)
        if not summary:
            return False
        diverged = summary.get("final_val_loss") is None
        return not self.test or diverged or reading.is_test_scored(summary)


def make_jobs(
    exps: list[str], seeds: list[int], overrides: dict[str, Any], test: bool = False
) -> list[Job]:
    """Return every experiment x seed, seeds outermost so that a complete set of arms comes early.

    Args:
        exps: Ids, files of params/, or globs such as "DEMO-*".
        test: Whether runs are scored on the test split at their end.

    Raises:
        UserError: A glob matches nothing, or an experiment or override is wrong.
    """
    configs = [config.load_config(exp, overrides) for exp in experiments_named(exps)]
    return [
        Job(
            exp=cfg.id,
            seed=seed,
            path=run_folder(cfg, seed),
            max_steps=cfg.train.max_steps,
            devices=cfg.machine.devices,
            device=cfg.machine.device,
            test=test,
        )
        for seed in seeds
        for cfg in configs
    ]


def job_command(job: Job, overrides: dict[str, Any]) -> list[str]:
    """Return the command that makes the run of a job in a process of its own."""
    arguments = run_arguments(job.exp, job.seed, overrides)
    if job.test:
        arguments.append("--test")
    return [sys.executable, "-m", "oelm_lib.cli", *arguments]


def mark_queued(job: Job, slurm_job: str | None = None) -> None:
    """Write state `queued` into status.json of a run that waits.

    What an earlier session of the run recorded there is kept. A disk that refuses the file is no
    error: the run meets the same disk, and reports it.

    Args:
        slurm_job: Number of the Slurm job that will train the run.
    """
    if reading.state(job.path) not in MARKABLE or is_locked(job.path) is not False:
        return
    before = reading.known_status(job.path) or {"step": 0, "started": None}
    record = {
        "state": "queued",
        "max_steps": job.max_steps,
        "heartbeat": time.time(),
        "error": None,
        "job": slurm_job,
    }
    with contextlib.suppress(OSError):
        job.path.mkdir(parents=True, exist_ok=True)
        write_json(job.path / "status.json", before | record | this_process())


def unmark_queued(job: Job, before: dict[str, Any]) -> None:
    """Undo this process' mark_queued where the run still waits.

    Args:
        before: Its status.json as it was; {} for none.
    """
    status = reading.known_status(job.path)
    if status.get("state") != "queued" or status.get("pid") != this_process()["pid"]:
        return
    if before.get("state") not in (None, "queued"):
        with contextlib.suppress(OSError):
            write_json(job.path / "status.json", before)
    else:
        remove_untouched(job)


def has_begun(job: Job) -> bool:
    """Return whether the run folder holds more than what the queue itself wrote there."""
    return job.path.is_dir() and bool({file.name for file in job.path.iterdir()} - QUEUE_FILES)


def remove_untouched(job: Job) -> None:
    """Remove the folder of a run that never began, so that a failure leaves no empty folder."""
    if not job.path.is_dir() or has_begun(job):
        return
    shutil.rmtree(job.path, ignore_errors=True)
    with contextlib.suppress(OSError):  # another seed of the arm has a folder there
        job.path.parent.rmdir()


@dataclass(frozen=True)
class Writer:
    """The process that trains a run now, as its status.json names it."""

    pid: Any
    host: Any
    gpus: tuple[str, ...]

    @property
    def is_local(self) -> bool:
        """Whether it runs on this host."""
        return self.host == this_process()["host"]


def active_writer(path: Path) -> Writer | None:
    """Return the process that trains a run now, or None."""
    status = reading.known_status(path)
    if reading.true_state(path, status) not in ACTIVE:
        return None
    gpus = tuple(gpu for gpu in str(status.get("gpus") or "").split(",") if gpu)
    return Writer(status.get("pid"), status.get("host"), gpus)


def new_warnings(path: Path, known: set[str]) -> list[str]:
    """Return the warnings in status.json of a run that are not among the known ones; add them."""
    status = reading.known_status(path)
    new = [text for text in status.get("warnings") or () if text not in known]
    known.update(new)
    return new


def describe_end(job: Job, code: int, seconds: float) -> str:
    """Return one line about a run that ended with an exit code after so many seconds."""
    duration = format_duration(seconds)
    summary = reading.read_or_none(reading.read_summary, job.path)
    if code == STOPPED:
        return f"{job.name}: stopped after {duration}; the same command continues it"
    if code != DONE or not summary:
        return f"{job.name}: failed after {duration}"
    return f"{job.name}: done in {duration}, {result_text(summary)}"


def result_text(summary: dict[str, Any]) -> str:
    """Return the result of a finished run in words, from its summary.json."""
    loss = summary.get("final_val_loss")
    if loss is None:
        return "diverged (no finite val_loss)"
    return f"val_loss {loss:.4f}, perplexity {perplexity(loss):.3f}"


def failure_reason(job: Job, code: int) -> str:
    """Return the last line that a failed run wrote, or its exit code.

    If a signal ended the run, its last line is unrelated, so the signal is returned.
    """
    if code < 0:
        return exit_text(code)
    try:
        log = (job.path / NOTEBOOK_LOG).read_text(encoding="utf-8", errors="replace")
    except OSError:
        log = ""
    lines = log.strip().splitlines()
    return lines[-1].removeprefix("oelm: ") if lines else exit_text(code)
