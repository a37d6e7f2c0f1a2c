"""Many runs on one machine: a queue that skips finished runs and continues stopped ones."""

import contextlib
import os
import signal
import subprocess
import time
from collections import Counter
from dataclasses import dataclass
from typing import Any

from oelm_lib.errors import DONE, FAILED, IN_USE, STOPPED, UserError
from oelm_lib.files import as_user_error
from oelm_lib.hardware import available_cores
from oelm_lib.launch.jobs import (
    Job,
    active_writer,
    describe_end,
    failure_reason,
    has_begun,
    job_command,
    mark_queued,
    new_warnings,
    remove_untouched,
    unmark_queued,
)
from oelm_lib.launch.processes import child_environment, kill_tree
from oelm_lib.launch.slots import Slots, check_room, decide
from oelm_lib.runs.logs import NOTEBOOK_LOG
from oelm_lib.runs.reading import STALE_SECONDS, known_status
from oelm_lib.runs.stop import on_stop
from oelm_lib.units import counted, format_duration

POLL_SECONDS = 0.5
MOST_STARTS = 3
"""How often a run is started at most, if its folder turns out to be in use."""
MARK_SECONDS = STALE_SECONDS / 2
"""Time between two heartbeats of the runs that wait."""
REMIND_SECONDS = 600.0
"""Longest silence while the queue waits."""


@dataclass(frozen=True)
class _Started:
    """A run that this queue has started."""

    job: Job
    gpus: tuple[str, ...]
    time: float


def run_queue(jobs: list[Job], overrides: dict[str, Any], slots: Slots) -> int:
    """Execute the jobs, each as `oelm run` in its own process group; returns an exit code.

    A failing run does not stop the others. Runs that an earlier queue left running are waited for
    and not started twice. Ctrl-C lets every run save and stop, a second one kills them; in both
    cases no process is left behind.

    Raises:
        UserError: A run needs more GPUs than there are, or names one by machine.device.
    """
    queue = Queue(jobs, overrides, slots)
    with on_stop(queue.on_signal):
        return queue.execute()


class Queue:
    """The state of a queue while it is executed."""

    def __init__(self, jobs: list[Job], overrides: dict[str, Any], slots: Slots):
        self._overrides, self._slots = overrides, slots
        self._waiting = [job for job in jobs if not job.done]
        check_room(self._waiting, slots)
        self._running: dict[subprocess.Popen, _Started] = {}
        self._failures: dict[str, list[Job]] = {}
        self._stopped: list[Job] = []
        self._starts: Counter[Job] = Counter()
        self._before = {job: known_status(job.path) for job in self._waiting}
        self._stopping = False
        self._next_mark = 0.0
        self._announced: set[str] = set()
        self._last_reason, self._last_reason_at = "", 0.0
        self._threads = max(available_cores() // slots.width, 1)
        done = len(jobs) - len(self._waiting)
        print(
            f"{counted(len(jobs), 'run')}: {done} done before, {len(self._waiting)} to go,"
            f" {slots.describe()}"
        )

    def execute(self) -> int:
        """Start and collect runs until none is left; returns an exit code."""
        last_active = time.monotonic()
        try:
            while self._running or (self._waiting and not self._stopping):
                self._mark_waiting()
                if self._tick():
                    last_active = time.monotonic()
                elif time.monotonic() - last_active > self._slots.max_wait:
                    self._give_up()
        finally:
            self._end()
        return self._result()

    def on_signal(self, number: int, frame: Any) -> None:
        """Ask every run to save and stop; the second Ctrl-C kills them with all they started."""
        if not self._stopping:
            self._stop_runs()
            print("stopping: each run saves first (Ctrl-C again kills)", flush=True)
        elif number == signal.SIGINT:  # after another signal the runs still save
            for process in list(self._running):
                kill_tree(process.pid)
            print("killed", flush=True)

    def _stop_runs(self) -> None:
        """Ask every run to save and stop, and start no other."""
        self._stopping = True
        for process in list(self._running):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGINT)

    def _end(self) -> None:
        """Unmark the runs that wait; if the queue fails, its running ones first save and stop."""
        if self._running and not self._stopping:
            self._stop_runs()
        for process in self._running:
            process.wait()
        for job, before in self._before.items():
            unmark_queued(job, before)

    def _mark_waiting(self) -> None:
        """Mark the runs that wait as queued, and again before their heartbeat is stale."""
        now = time.monotonic()
        if now >= self._next_mark:
            self._next_mark = now + MARK_SECONDS
            for job in self._waiting:
                mark_queued(job)

    def _tick(self) -> bool:
        """Start what fits, wait a moment, collect what ended; return whether a run was active."""
        self._waiting = [job for job in self._waiting if not job.done]
        active = {job: writer for job in self._waiting if (writer := active_writer(job.path))}
        if not self._stopping:
            held = [started.gpus for started in self._running.values()]
            starts, reasons = decide(self._waiting, active, held, self._slots)
            for job, gpus in starts:
                if not self._stopping:  # a signal can come between two starts
                    self._waiting.remove(job)
                    self._start(job, gpus)
            self._print_reasons(reasons)
        was_active = bool(self._running or active)  # before the runs that end here are collected
        time.sleep(POLL_SECONDS)
        self._show_warnings()
        for process in [process for process in self._running if process.poll() is not None]:
            self._collect(self._running.pop(process), process.returncode)
        return was_active

    def _start(self, job: Job, gpus: tuple[str, ...]) -> None:
        """Start a job, or note that it cannot be started."""
        self._starts[job] += 1
        if self._slots.watch:
            for gpu in gpus:
                self._slots.watch.forget(gpu)
        try:
            with as_user_error(job.path, "cannot be started here", exact=True):
                process = self._open_process(job, gpus)
        except UserError as error:
            print(f"{job.name}: failed: {self._note_failure(job, str(error))}", flush=True)
            return
        self._running[process] = _Started(job, gpus, time.monotonic())
        if self._stopping:  # the signal came while the process was made
            os.killpg(process.pid, signal.SIGINT)
        where = f" on GPU {', '.join(gpus)}" if gpus else ""
        print(f"{job.name}: started{where} as process {process.pid}", flush=True)

    def _open_process(self, job: Job, gpus: tuple[str, ...]) -> subprocess.Popen:
        """Start `oelm run` of a job; its output goes to its log."""
        overrides = self._overrides
        if gpus and not self._slots.shared:
            overrides = {"machine.device": "cuda"} | overrides
        job.path.mkdir(parents=True, exist_ok=True)
        with open(job.path / NOTEBOOK_LOG, "ab") as log:
            return subprocess.Popen(
                job_command(job, overrides),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=os.environ | child_environment(self._threads, gpus),
                start_new_session=True,
            )

    def _collect(self, started: _Started, code: int) -> None:
        """Report a run that has ended, and queue it again where another process had it in use."""
        job = started.job
        if code == IN_USE and self._starts[job] < MOST_STARTS:
            self._waiting.append(job)
            return
        if job.done:  # a signal at the very end changes the exit code, not the result
            code = DONE
        elif self._stopping and not has_begun(job):
            code = STOPPED
        line = describe_end(job, code, time.monotonic() - started.time)
        if code not in (DONE, STOPPED):
            line += f": {self._note_failure(job, failure_reason(job, code))}"
        elif code == STOPPED:
            self._stopped.append(job)
        unmark_queued(job, self._before[job])  # one that ended before it began to train
        print(line, flush=True)

    def _note_failure(self, job: Job, reason: str) -> str:
        """Record a failure; return its reason, or which run failed for the same one before."""
        general = reason.replace(str(job.path), "RUN").replace(job.path.parent.name, "RUN")
        general = general.replace(job.exp, "ID").replace(f"seed{job.seed}", "SEED")
        failed = self._failures.setdefault(general, [])
        failed.append(job)
        began = has_begun(job)
        remove_untouched(job)
        if len(failed) > 1:
            return f"for the same reason as {failed[0].name}"
        return f"{reason} ({job.path / NOTEBOOK_LOG})" if began else reason

    def _result(self) -> int:
        """Name the runs that failed or stopped, in the queue's order; returns its exit code."""
        failed = [job for jobs in self._failures.values() for job in jobs]
        for jobs, word in ((failed, "failed"), (self._stopped, "stopped")):
            if jobs:
                names = ", ".join(job.name for job in self._before if job in jobs)
                print(f"{len(jobs)} {word}: {names}; the same command continues them")
        if self._stopping or (self._stopped and not failed):
            return STOPPED
        return FAILED if failed else DONE

    def _give_up(self) -> None:
        """Count the runs that wait as failed."""
        waited = format_duration(self._slots.max_wait)
        print(f"gave up after {waited} without a run: {self._last_reason}", flush=True)
        self._failures.setdefault("gave up", []).extend(self._waiting)
        self._waiting = []

    def _print_reasons(self, reasons: list[str]) -> None:
        """Print why runs wait where that is new, and after REMIND_SECONDS again."""
        text, now = "; ".join(reasons), time.monotonic()
        silent = now - self._last_reason_at
        if text and self._waiting and (text != self._last_reason or silent > REMIND_SECONDS):
            print(f"waiting: {text}", flush=True)
            self._last_reason, self._last_reason_at = text, now

    def _show_warnings(self) -> None:
        """Print each warning of a running run, the same text once."""
        for started in self._running.values():
            for text in new_warnings(started.job.path, self._announced):
                print(f"{started.job.name}: warning: {text}", flush=True)
