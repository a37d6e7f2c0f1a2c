"""Many runs on one machine: a queue that skips what is done and goes on with what was stopped."""

import contextlib
import fnmatch
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from oelm_lib import config
from oelm_lib.errors import UserError
from oelm_lib.files import write_json
from oelm_lib.launch.devices import IdleWatch, choose_gpus, open_nvml
from oelm_lib.launch.notebook import DONE, FAILED, STOPPED, USER_ERROR
from oelm_lib.runs import reading
from oelm_lib.runs.metrics import perplexity
from oelm_lib.runs.process import this_process
from oelm_lib.runs.reading import ACTIVE
from oelm_lib.runs.status import format_duration
from oelm_lib.runs.stop import on_stop

POLL_SECONDS = 0.5
MOST_STARTS = 3
"""Starts of a run that others turn out to hold."""
REMIND_SECONDS = 600.0
"""Longest silence while the queue waits."""


@dataclass(frozen=True)
class Job:
    """One run to be made."""

    exp: str
    seed: int
    path: Path
    max_steps: int
    devices: int
    test: bool = False

    @property
    def name(self) -> str:
        """Experiment and seed for messages."""
        return f"{self.exp} seed {self.seed}"

    @property
    def done(self) -> bool:
        """Whether it is trained and, where `test` asks for it, scored on the test split."""
        summary = _summary(self)
        return bool(summary) and not (self.test and summary["final_test_loss"] is None)


@dataclass(frozen=True)
class Slots:
    """Where runs may go: so many at a time on the CPU, or one on each of these GPUs.

    watch: Asked before a GPU is taken; None: GPUs are taken at once. max_wait: seconds without any run, at most.
    """

    workers: int = 1
    gpus: tuple[str, ...] = ()
    watch: IdleWatch | None = None
    max_wait: float = 24 * 3600.0


def make_slots(workers: int, gpus: str | None, wait_idle: bool, max_wait: float) -> Slots:
    """The slots that the command line asks for; `max_wait` in hours. Raises UserError where a GPU is not there."""
    if wait_idle and not gpus:
        raise UserError("--wait-idle is about GPUs; add --gpus auto or --gpus 2,3")
    nvml = open_nvml() if gpus else None
    chosen = tuple(choose_gpus(gpus, nvml)) if gpus else ()
    return Slots(workers, chosen, IdleWatch(nvml) if wait_idle else None, 3600 * max_wait)


def make_jobs(
    exps: list[str], seeds: list[int], overrides: dict[str, Any], test: bool = False
) -> list[Job]:
    """Every experiment x seed, seeds outermost so that a complete set of arms comes early.

    Args:
        exps: Ids or globs such as "DEMO-*".
        test: Whether runs are scored on the test split at their end.

    Raises:
        UserError: A glob matches nothing, or an experiment or override is wrong.
    """
    ids: list[str] = []
    for pattern in exps:
        found = (
            fnmatch.filter(config.experiment_ids(), pattern)
            if any(c in pattern for c in "*?[")
            else [pattern]
        )
        if not found:
            raise UserError(
                f"{pattern!r} matches no experiment; allowed: {', '.join(config.experiment_ids())}"
            )
        ids += [exp for exp in found if exp not in ids]
    configs = {exp: config.load_config(exp, overrides) for exp in ids}
    return [make_job(cfg, seed, test) for seed in seeds for cfg in configs.values()]


def make_job(cfg: config.Experiment, seed: int, test: bool) -> Job:
    """One run of an experiment."""
    path = config.outputs_dir() / cfg.folder / f"seed{seed}"
    return Job(cfg.id, seed, path, cfg.train.max_steps, cfg.machine.devices, test)


def run_queue(
    jobs: list[Job],
    overrides: dict[str, Any],
    slots: Slots,
    on_end: Callable[[], None] = lambda: None,
) -> int:
    """Execute the jobs, each as `oelm run` in its own process group; returns an exit code.

    A failing run does not stop the others. Runs that an earlier, killed queue left going are waited for, not started
    twice. Ctrl-C lets every run save and stop, a second one kills them; in both cases no process is left behind.

    Args:
        on_end: Called when a run has ended.

    Raises:
        UserError: A run needs more GPUs than there are slots.
    """
    queue = _Queue(jobs, overrides, slots, on_end)
    with on_stop(queue.on_signal):
        return queue.execute()


class _Queue:
    """The state of a queue while it is executed."""

    def __init__(
        self, jobs: list[Job], overrides: dict[str, Any], slots: Slots, on_end: Callable[[], None]
    ):
        self._overrides, self._slots, self._on_end = overrides, slots, on_end
        self._waiting = [job for job in jobs if not job.done]
        self._running: dict[subprocess.Popen, tuple[Job, tuple[str, ...], float]] = {}
        self._failed: list[str] = []
        self._elsewhere: list[Job] = []
        self._starts: Counter[Job] = Counter()
        self._stopping = self._hard = False
        self._said, self._said_at = "", 0.0
        width = len(slots.gpus) or slots.workers
        for job in self._waiting:
            if slots.gpus and job.devices > width:
                raise UserError(
                    f"{job.name}: machine.devices = {job.devices}, but --gpus names {width}; name more"
                )
        where = f"on GPU {', '.join(slots.gpus)}" if slots.gpus else f"{width} at a time"
        print(
            f"{len(jobs)} runs: {len(jobs) - len(self._waiting)} done before, {len(self._waiting)} to go, {where}"
        )
        cores = (
            len(os.sched_getaffinity(0))
            if hasattr(os, "sched_getaffinity")
            else os.cpu_count() or 1
        )
        threads = str(max(cores // width, 1))
        self._environment = os.environ | {"OMP_NUM_THREADS": threads, "MKL_NUM_THREADS": threads}

    def execute(self) -> int:
        """Start and collect until nothing is left."""
        queued = [job for job in self._waiting if mark_queued(job)]
        last_going = time.monotonic()
        try:
            while self._running or (self._waiting and not self._stopping):
                if not self._stopping:
                    self._start_what_fits()
                time.sleep(POLL_SECONDS)
                self._collect()
                last_going = time.monotonic() if self._running or self._elsewhere else last_going
                if time.monotonic() - last_going > self._slots.max_wait:
                    print(
                        f"gave up after {format_duration(self._slots.max_wait)} without a run: {self._said}"
                    )
                    self._failed += [job.name for job in self._waiting]
                    break
        finally:
            for job in queued:
                if reading.state(job.path) == "queued":
                    (job.path / "status.json").unlink(missing_ok=True)
        if self._stopping:
            return STOPPED
        if self._failed:
            print(
                f"{len(self._failed)} runs did not end: {', '.join(self._failed)}; the same command tries them again"
            )
        return FAILED if self._failed else DONE

    def on_signal(self, number: int, frame: Any) -> None:
        """Pass a stop on to every run; the second Ctrl-C kills them with all they started."""
        self._hard = self._stopping and number == signal.SIGINT
        self._stopping = True
        for process in self._running:
            with contextlib.suppress(ProcessLookupError, psutil.NoSuchProcess):
                if self._hard:
                    for child in psutil.Process(process.pid).children(recursive=True):
                        child.kill()
                    process.kill()
                else:
                    os.killpg(process.pid, signal.SIGINT)
        print(
            "stopped hard"
            if self._hard
            else "stopping: each run saves first (Ctrl-C again stops hard)",
            flush=True,
        )

    def _start_what_fits(self) -> None:
        self._waiting = [job for job in self._waiting if not job.done]
        self._elsewhere = elsewhere = [
            job for job in self._waiting if reading.state(job.path) in ACTIVE
        ]
        ready = [job for job in self._waiting if job not in elsewhere]
        free, reasons = self._free(elsewhere)
        for job in ready:
            need = job.devices if self._slots.gpus else 1
            if len(free) < need or self._stopping:
                break
            gpus, free = tuple(free[:need]), free[need:]
            self._waiting.remove(job)
            self._start(job, gpus)
        for job in elsewhere:
            status = reading.read_status(job.path)
            reasons.append(f"{job.name} goes on as process {status['pid']} on {status['host']}")
        said = "; ".join(reasons)
        if (
            said
            and self._waiting
            and (said != self._said or time.monotonic() - self._said_at > REMIND_SECONDS)
        ):
            print(f"waiting: {said}", flush=True)
            self._said, self._said_at = said, time.monotonic()

    def _free(self, elsewhere: list[Job]) -> tuple[list[str], list[str]]:
        """Slots that can be taken now, and why others can't; on the CPU a slot has no name."""
        held = [gpu for _, gpus, _ in self._running.values() for gpu in gpus]
        statuses = [reading.read_status(job.path) for job in elsewhere]
        mine = [status for status in statuses if status["host"] == this_process()["host"]]
        if not self._slots.gpus:
            return [""] * (self._slots.workers - len(held) - len(mine)), []
        held += [gpu for status in mine for gpu in (status.get("gpus") or "").split(",")]
        free = [gpu for gpu in self._slots.gpus if gpu not in held]
        if self._slots.watch is None:
            return free, []
        reasons = {gpu: self._slots.watch.reason(gpu) for gpu in free}
        return [gpu for gpu in free if not reasons[gpu]], [
            reason for reason in reasons.values() if reason
        ]

    def _start(self, job: Job, gpus: tuple[str, ...]) -> None:
        environment, overrides = self._environment, dict(self._overrides)
        self._starts[job] += 1
        if self._slots.gpus:
            # The driver's numbers are CUDA's only in this order.
            environment = environment | {
                "CUDA_VISIBLE_DEVICES": ",".join(gpus),
                "CUDA_DEVICE_ORDER": "PCI_BUS_ID",
            }
            overrides = {"machine.device": "cuda"} | overrides
            for gpu in gpus if self._slots.watch else ():
                self._slots.watch.taken(gpu)
        command = run_command(job, overrides)
        job.path.mkdir(parents=True, exist_ok=True)
        with open(job.path / "notebook.log", "ab") as log:
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=environment,
                start_new_session=True,
            )
        self._running[process] = job, gpus, time.monotonic()
        if self._stopping:  # asked while the process was made, so it was not told
            os.killpg(process.pid, signal.SIGINT)
        where = f" on GPU {', '.join(gpus)}" if self._slots.gpus else ""
        print(f"{job.name}: started{where} as process {process.pid}", flush=True)

    def _collect(self) -> None:
        for process in [process for process in self._running if process.poll() is not None]:
            job, _, started = self._running.pop(process)
            code = process.returncode
            if (
                code == USER_ERROR
                and (job.path / "lock.json").exists()
                and self._starts[job] < MOST_STARTS
            ):
                self._waiting.append(job)  # another process has become its writer meanwhile
                continue
            print(_ended(job, code, time.monotonic() - started), flush=True)
            try:
                self._on_end()
            except UserError as error:  # the other runs go on
                print(error, flush=True)
            if code != DONE:
                self._failed.append(job.name)


def run_command(job: Job, overrides: dict[str, Any]) -> list[str]:
    """`oelm run` of one job."""
    command = [sys.executable, "-m", "oelm_lib.cli", "run", job.exp, "--seed", str(job.seed)]
    command += ["--test"] * job.test
    for key, value in overrides.items():
        command += ["--set", config.as_text({key: value})]
    return command


def mark_queued(job: Job, /, **fields: Any) -> bool:
    """Show a run that never started as queued; returns whether it was marked."""
    if reading.state(job.path) not in ("empty", "queued"):
        return False
    job.path.mkdir(parents=True, exist_ok=True)
    record = {
        "state": "queued",
        "step": 0,
        "max_steps": job.max_steps,
        "heartbeat": time.time(),
        "started": None,
    }
    write_json(job.path / "status.json", record | this_process() | fields)
    return True


def _ended(job: Job, code: int, seconds: float) -> str:
    """One line on how a run ended."""
    took = format_duration(seconds)
    summary = _summary(job)
    if code == DONE and summary:
        loss = summary["final_val_loss"]
        return f"{job.name}: done in {took}, val_loss {loss:.4f}, perplexity {perplexity(loss):.3f}"
    if code == STOPPED:
        return f"{job.name}: stopped after {took}; the same command goes on"
    lines = (job.path / "notebook.log").read_text(errors="replace").strip().splitlines()
    return f"{job.name}: failed after {took}: {lines[-1] if lines else f'exit code {code}'} ({job.path}/notebook.log)"


def _summary(job: Job) -> dict[str, Any] | None:
    try:
        return reading.read_summary(job.path)
    except UserError:
        return None
