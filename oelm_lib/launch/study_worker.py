"""A worker of a study: one process that trains runs one after another, without a notebook."""

import multiprocessing
import os
import signal
import sys
import traceback
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from oelm_lib import config
from oelm_lib.errors import UserError
from oelm_lib.launch.processes import child_environment
from oelm_lib.runs.folder import open_run
from oelm_lib.runs.lock import RunInUse
from oelm_lib.runs.schema import CHECKPOINTS
from oelm_lib.study.cell import PlannedRun
from oelm_lib.study.records import make_record

RECORDED, INTERRUPTED, HELD, BROKEN = "recorded", "interrupted", "held", "broken"
"""Kinds of a Reply. INTERRUPTED: the run was asked to stop, and saved; HELD: another process writes
it; BROKEN: an error ended it."""


@dataclass(frozen=True)
class Task:
    """A run for a worker."""

    study: str
    plan_hash: str
    planned: PlannedRun
    base: str
    overrides: dict[str, Any]
    outputs: Path
    score_test: bool


@dataclass(frozen=True)
class Reply:
    """What became of a task."""

    kind: str
    record: dict[str, Any] | None = None
    message: str = ""


def serve(connection: Connection, log: Path) -> None:
    """Train the tasks that arrive until the connection closes; what is printed goes to `log`.

    The process leaves the terminal's group, so that Ctrl-C reaches the engine alone, which asks the
    run to stop by its STOP file.
    """
    os.setsid()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with open(log, "a", buffering=1, encoding="utf-8") as file:
        os.dup2(file.fileno(), sys.stdout.fileno())
        os.dup2(file.fileno(), sys.stderr.fileno())
    while True:
        try:
            task = connection.recv()
        except (EOFError, OSError):
            return
        try:
            connection.send(make_reply(task, log))
        except OSError:
            return


def make_reply(task: Task, log: Path) -> Reply:
    """Train a run to its end, and say what became of it; `log`: where this process prints."""
    try:
        return _train(task)
    except RunInUse as error:
        return Reply(HELD, message=str(error))
    except UserError as error:
        return Reply(BROKEN, message=str(error))
    except Exception as error:
        traceback.print_exc()
        return Reply(BROKEN, message=f"{type(error).__name__}: {error} ({log})")


def _train(task: Task) -> Reply:
    """Train a run to its end and make its record. Raises UserError where it cannot be trained."""
    from oelm_lib.training import score_test_split, train
    from oelm_lib.training.device import describe_machine

    cfg = config.load_config(task.base, task.overrides)
    run = open_run(cfg, task.planned.seed, task.outputs)
    if not run.finished:
        bad_step = run.path / "bad_step.json"
        bad_step.unlink(missing_ok=True)
        try:
            train(run)
        except UserError:
            if not bad_step.is_file():  # with the file, the run diverged: a result to record
                raise
        else:
            if not run.finished:
                return Reply(INTERRUPTED)
    if task.score_test and run.finished:
        score_test_split(run)
    record = make_record(run.path, task.planned, task.study, task.plan_hash, describe_machine())
    return Reply(RECORDED, record)


def delete_checkpoints(path: Path) -> None:
    """Delete the weights of a recorded run; its summary, config and metrics stay."""
    for name in CHECKPOINTS:
        (path / f"{name}.pt").unlink(missing_ok=True)


@dataclass
class Worker:
    """The engine's side of a worker: its process, its connection and the run that it trains."""

    number: int
    gpu: str | None
    """The GPU that its process sees; None: it trains on the CPU."""
    process: BaseProcess | None = None
    connection: Connection | None = None
    run: PlannedRun | None = None
    started: float = 0.0

    def open(self, log: Path) -> None:
        """Start the process; its output goes to `log`."""
        context = multiprocessing.get_context("spawn")
        self.connection, remote = context.Pipe()
        environment = child_environment(1, [self.gpu] if self.gpu else [])
        before = {key: os.environ.get(key) for key in environment}
        os.environ.update(environment)  # for the child, whose libraries read it when they load
        try:
            self.process = context.Process(target=serve, args=(remote, log), daemon=True)
            self.process.start()
        finally:
            for key, value in before.items():
                if value is None:
                    del os.environ[key]
                else:
                    os.environ[key] = value
        remote.close()
