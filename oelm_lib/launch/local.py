"""Many runs on one machine: a queue that skips what is done and goes on with what was stopped."""

import contextlib
import fnmatch
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from oelm_lib import config
from oelm_lib.errors import UserError
from oelm_lib.launch.notebook import DONE, FAILED, STOP_SIGNALS, STOPPED, as_text
from oelm_lib.runs.reading import read_summary
from oelm_lib.runs.status import format_duration


@dataclass(frozen=True)
class Job:
    """One run to be made."""

    exp: str
    seed: int
    path: Path

    @property
    def name(self) -> str:
        """Experiment and seed for messages."""
        return f"{self.exp} seed {self.seed}"


def make_jobs(exps: list[str], seeds: list[int], overrides: dict[str, Any]) -> list[Job]:
    """Every experiment x seed, seeds outermost so that a complete set of arms comes early.

    Args:
        exps: Ids or globs such as "DEMO-*".

    Raises:
        UserError: A glob matches nothing, or an experiment or override is wrong.
    """
    ids: list[str] = []
    for pattern in exps:
        found = fnmatch.filter(config.experiment_ids(), pattern) if any(c in pattern for c in "*?[") else [pattern]
        if not found:
            raise UserError(f"{pattern!r} matches no experiment; allowed: {', '.join(config.experiment_ids())}")
        ids += [exp for exp in found if exp not in ids]
    folders = {exp: config.load_config(exp, overrides).folder for exp in ids}
    return [Job(exp, seed, config.outputs_dir() / folders[exp] / f"seed{seed}") for seed in seeds for exp in ids]


def run_queue(jobs: list[Job], overrides: dict[str, Any], workers: int) -> int:
    """Execute the jobs, `workers` at a time, each as `oelm run` in its own process group; returns an exit code.

    A failing run does not stop the others. The cores are parted among the workers.
    """
    waiting = [job for job in jobs if not read_summary(job.path)]
    print(f"{len(jobs)} runs: {len(jobs) - len(waiting)} done before, {len(waiting)} to go, {workers} at a time")
    threads = str(max((os.cpu_count() or 1) // workers, 1))
    environment = os.environ | {"OMP_NUM_THREADS": threads, "MKL_NUM_THREADS": threads}
    running: dict[subprocess.Popen, tuple[Job, float]] = {}
    codes: dict[str, int] = {}
    stopping = False

    def on_signal(number: int, frame: Any) -> None:
        nonlocal stopping
        hard = stopping and number == signal.SIGINT
        stopping = True
        for process in running:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGINT)
        print("stopping hard" if hard else "stopping: each run saves first (Ctrl-C again stops hard)", flush=True)

    handlers = {number: signal.signal(number, on_signal) for number in STOP_SIGNALS}
    try:
        while running or (waiting and not stopping):
            while waiting and len(running) < workers and not stopping:
                job = waiting.pop(0)
                running[_start(job, overrides, environment)] = job, time.monotonic()
            time.sleep(0.1)
            for process in [process for process in running if process.poll() is not None]:
                job, started = running.pop(process)
                codes[job.name] = process.returncode
                print(_ended(job, process.returncode, time.monotonic() - started), flush=True)
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
    if stopping:
        return STOPPED
    failed = [name for name, code in codes.items() if code != DONE]
    if failed:
        print(f"{len(failed)} of {len(jobs)} runs did not end: {', '.join(failed)}")
    return FAILED if failed else DONE


def _start(job: Job, overrides: dict[str, Any], environment: dict[str, str]) -> subprocess.Popen:
    command = [sys.executable, "-m", "oelm_lib.cli", "run", job.exp, "--seed", str(job.seed)]
    for key, value in overrides.items():
        command += ["--set", as_text({key: value})]
    job.path.mkdir(parents=True, exist_ok=True)
    with open(job.path / "notebook.log", "ab") as log:
        return subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environment, start_new_session=True
        )


def _ended(job: Job, code: int, seconds: float) -> str:
    """One line on how a run ended."""
    took = format_duration(seconds)
    summary = read_summary(job.path)
    if code == DONE and summary:
        return (
            f"{job.name}: done in {took}, val_loss {summary['final_val_loss']:.4f},"
            f" perplexity {summary['final_val_perplexity']:.3f}"
        )
    if code == STOPPED:
        return f"{job.name}: stopped after {took}; the same command goes on"
    lines = (job.path / "notebook.log").read_text(errors="replace").strip().splitlines()
    return f"{job.name}: failed after {took}: {lines[-1] if lines else f'exit code {code}'} ({job.path}/notebook.log)"
