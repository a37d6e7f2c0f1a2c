"""The engine of a study: it trains what is missing and records each run as it ends.

Several engines may work on one study, on one machine or on several that share its folders: each
takes runs that nobody holds (a run folder has one writer), and records are appended under a lock.
"""

import contextlib
import signal
import sys
import time
from collections import Counter
from collections.abc import Iterator
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any

from oelm_lib import config
from oelm_lib.errors import DONE, FAILED, STOPPED
from oelm_lib.launch.processes import exit_text, is_held_by_another
from oelm_lib.launch.slurm import asks_for_gpu, logs_folder, submit_commands
from oelm_lib.launch.study_cost import describe_cost, estimate_left
from oelm_lib.launch.study_worker import (
    HELD,
    INTERRUPTED,
    RECORDED,
    Reply,
    Task,
    Worker,
    delete_checkpoints,
)
from oelm_lib.runs.corpus_fit import open_fitting_corpus
from oelm_lib.runs.lock import is_locked
from oelm_lib.runs.names import run_folder
from oelm_lib.runs.reading import state
from oelm_lib.runs.schema import ACTIVE
from oelm_lib.runs.stop import on_stop, remove_stop_file, write_stop_file
from oelm_lib.study.cell import BASE_SIZE, CONFIRM, Cell, PlannedRun
from oelm_lib.study.checks import check_corpora, read_grid
from oelm_lib.study.expected import runs_left
from oelm_lib.study.grid import Grid
from oelm_lib.study.records import append_record, records_path, register_plan
from oelm_lib.study.study import load_study
from oelm_lib.units import counted, format_duration

POLL_SECONDS = 2.0
MOST_TRIES = 2
"""Times that a run is started before it is left out."""


def run_study(
    name: str,
    workers: int = 2,
    gpus: list[str] | None = None,
    dry_run: bool = False,
    sbatch: dict[str, str] | None = None,
) -> int:
    """Train every run of a study that has no record yet; return an exit code.

    Args:
        name: params/studies/<name>.yaml.
        workers: Runs at a time on the CPU, each with one thread; with `sbatch`, jobs.
        gpus: GPU numbers; given, one run at a time on each of them.
        dry_run: Print what is left and its cost; train nothing.
        sbatch: Options of a Slurm job; given, `workers` engines are submitted as jobs.

    Raises:
        UserError: The plan, a record or a corpus is wrong.
    """
    grid = load_study(name).grid
    if dry_run:
        print(describe_cost(grid, len(gpus) if gpus and sbatch is None else workers))
        return DONE
    _open_corpora(grid)
    if sbatch is not None:
        return _submit(name, workers, sbatch)
    engine = _Engine(name, grid, gpus or [None] * workers)
    with on_stop(engine.on_signal):
        return engine.execute()


def _open_corpora(grid: Grid) -> None:
    """Raise UserError where a corpus is missing, too small, or other than the recorded one."""
    plan, splits = grid.plan, {}
    for name in plan.corpora:
        cell = Cell(name, BASE_SIZE, next(iter(plan.arms)))
        corpus = open_fitting_corpus(plan.config(cell), test=plan.confirm.split == "test")
        splits[name] = corpus.manifest["splits"]
    check_corpora(grid.records, splits)


def _submit(name: str, jobs: int, sbatch: dict[str, str]) -> int:
    """Submit engines of one worker each as one Slurm array."""
    command = [sys.executable, "-m", "oelm_lib.cli", "study", name, "--workers", "1"]
    if asks_for_gpu(sbatch):
        command += ["--gpus", "auto"]
    for number in submit_commands(sbatch, [command] * jobs, jobs):
        print(f"{name}: job {number}")
    print(f"logs in {logs_folder()}; records in {records_path(name)}")
    return DONE


class _Engine:
    """Trains one study until no run is missing; `gpus` has a GPU, or None, per worker."""

    def __init__(self, name: str, grid: Grid, gpus: list[str] | list[None]):
        self._name, self._plan, self._grid = name, grid.plan, grid
        self._outputs = config.outputs_dir() / "studies" / name
        self._outputs.mkdir(parents=True, exist_ok=True)
        self._workers = [Worker(number, gpu) for number, gpu in enumerate(gpus)]
        self._failures: Counter[PlannedRun] = Counter()
        self._held_by_others: set[PlannedRun] = set()  # e.g. trained or scored by another engine
        self._awaited: set[PlannedRun] = set()  # held by others, and already printed
        self._stopped_by_others: set[PlannedRun] = set()  # by a request that is not this engine's
        self._stopping = False
        self._size = -1  # bytes of the records that `_grid` was made from

    def execute(self) -> int:
        """Train until nothing is left; return an exit code."""
        left = runs_left(self._grid)
        recorded = counted(len(self._grid.records), "run")
        print(f"{self._name}: {recorded} recorded, about {left} to go", flush=True)
        try:
            while True:
                self._refresh()
                if not self._stopping:
                    self._assign()
                if not any(worker.run for worker in self._workers):
                    if self._stopping or not self._held_by_others:
                        break
                    self._name_held_by_others()
                self._collect()
        finally:
            self._end()
        return self._report()

    def on_signal(self, number: int, frame: Any) -> None:
        """Ask every run to save and stop; the second Ctrl-C kills the workers."""
        if self._stopping and number == signal.SIGINT:
            for worker in self._workers:
                if worker.process is not None:
                    worker.process.kill()
            return
        self._stopping = True
        for worker in self._workers:
            if worker.run is not None:
                self._ask_to_stop(worker.run)
        print("stopping: each run saves first (Ctrl-C again kills)", flush=True)

    def _name_held_by_others(self) -> None:
        """Print, once each, the runs that other processes hold."""
        for run in self._held_by_others - self._awaited:
            self._say(f"{run}: in use by another process, so waited for ({self._path(run)})")
        self._awaited |= self._held_by_others

    def _refresh(self) -> None:
        """Read the records again where another engine, or this one, has added some."""
        path = records_path(self._name)
        size = path.stat().st_size if path.exists() else 0
        if size != self._size:
            self._grid, self._size = read_grid(self._name, self._plan), size

    def _assign(self) -> None:
        """Give every idle worker the most urgent run that nobody holds."""
        idle = [worker for worker in self._workers if worker.run is None]
        for worker, run in zip(idle, self._free_runs(), strict=False):
            if run.stage == CONFIRM:
                register_plan(self._name, self._plan)
            self._start(worker, run)

    def _free_runs(self) -> Iterator[PlannedRun]:
        """Iterate over the runs that can be started, most urgent first; note those of others."""
        running = {worker.run for worker in self._workers}
        self._held_by_others = set()
        for run in self._grid.needs():
            if run in running | self._stopped_by_others or self._failures[run] >= MOST_TRIES:
                continue
            if self._is_held(run):
                self._held_by_others.add(run)
                continue
            yield run

    def _is_held(self, run: PlannedRun) -> bool:
        """Return whether a process trains or scores a run, or has opened it."""
        path = self._path(run)
        return state(path) in ACTIVE or is_locked(path) is True

    def _start(self, worker: Worker, run: PlannedRun) -> None:
        """Send a run to a worker, whose process is started where there is none."""
        if worker.process is None or not worker.process.is_alive():
            worker.open(self._outputs / f"worker{worker.number}.log")
        device = "cuda" if worker.gpu else "cpu"
        overrides = self._plan.overrides(run.cell, run.rate)
        overrides |= {"machine.threads": 1, "machine.device": device}
        score_test = run.stage == CONFIRM and self._plan.confirm.split == "test"
        task = Task(
            self._name, self._plan.hash, run, self._plan.base, overrides, self._outputs, score_test
        )
        remove_stop_file(self._path(run))  # of an engine that was killed
        worker.run, worker.started = run, time.monotonic()
        if self._stopping:  # the signal came meanwhile
            self._ask_to_stop(run)
        with contextlib.suppress(OSError):  # a worker that died is seen by `_collect`
            worker.connection.send(task)

    def _collect(self) -> None:
        """Wait for a reply or a worker's death, and deal with all that there are."""
        active = {worker.connection: worker for worker in self._workers if worker.run is not None}
        for connection in wait(list(active), POLL_SECONDS):  # without any it only sleeps
            worker = active[connection]
            run, worker.run = worker.run, None
            try:
                reply = connection.recv()
            except (EOFError, OSError):
                worker.process.join()
                connection.close()
                code = worker.process.exitcode
                worker.process = None
                self._fail(run, f"its worker died ({exit_text(code)})")
                continue
            self._settle(run, reply, time.monotonic() - worker.started)

    def _settle(self, run: PlannedRun, reply: Reply, seconds: float) -> None:
        """Record a run that has ended, or print why it has no record yet.

        A run that another process holds is no failure: it is tried again, or recorded there.
        """
        if reply.kind == RECORDED:
            append_record(records_path(self._name), reply.record)
            delete_checkpoints(self._path(run))
            self._refresh()
            record = reply.record
            loss = record["val_loss"]
            result = f"val_loss {loss:.4f}" if loss is not None else record["status"]
            self._say(f"{run}: {result} in {format_duration(seconds)}; {self._progress()}")
        elif reply.kind == INTERRUPTED and self._stopping:
            self._say(f"{run}: saved and stopped")
        elif reply.kind == INTERRUPTED:
            self._stopped_by_others.add(run)
            self._say(f"{run}: stopped by oelm stop, so left; the same command continues it")
        elif reply.kind != HELD:
            self._fail(run, reply.message)

    def _progress(self) -> str:
        """Return the runs recorded and left, and the time that these take."""
        left, seconds = estimate_left(self._grid)
        duration = format_duration(seconds / len(self._workers))
        return f"{len(self._grid.records)} recorded, about {left} left ({duration})"

    def _fail(self, run: PlannedRun, reason: str) -> None:
        """Count and print a failure."""
        self._failures[run] += 1
        again = "" if self._failures[run] >= MOST_TRIES or self._stopping else "; it is tried again"
        self._say(f"{run}: failed: {reason}{again}")

    def _report(self) -> int:
        """Print how the study ended; return the exit code."""
        if self._stopping:
            return STOPPED
        needs = self._grid.needs()
        failed = [run for run in needs if self._failures[run] >= MOST_TRIES]
        stopped = [run for run in needs if run in self._stopped_by_others]
        if failed:
            many = counted(len(failed), "run")
            self._say(f"{many} failed; the same command tries again, e.g. {failed[0]}")
        if stopped:
            many = counted(len(stopped), "run")
            self._say(f"{many} stopped; the same command continues, e.g. {stopped[0]}")
        if failed or stopped:
            return FAILED if failed else STOPPED
        self._say(f"complete: oelm report {self._name} makes its page")
        return DONE

    def _end(self) -> None:
        """Ask workers that train to stop; close all connections, which ends idle workers."""
        for worker in self._workers:
            if worker.process is None:
                continue
            if worker.run is not None:
                self._ask_to_stop(worker.run)
            worker.connection.close()
            worker.process.join(None if worker.run is not None else 10)
            if worker.process.is_alive():
                worker.process.kill()

    def _ask_to_stop(self, run: PlannedRun) -> None:
        """Ask a worker's run to save and stop, unless another process holds its folder."""
        if not is_held_by_another(self._path(run)):
            write_stop_file(self._path(run))

    def _path(self, run: PlannedRun) -> Path:
        """Return the folder of a run."""
        cfg = self._plan.config(run.cell, run.rate)
        return run_folder(cfg, run.seed, self._outputs)

    def _say(self, text: str) -> None:
        """Print a line with the time."""
        print(f"{time.strftime('%H:%M')} {text}", flush=True)
