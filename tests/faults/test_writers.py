"""Two processes that want one run: one writes, the other is told, and no record suffers."""

import json
import multiprocessing
import os
import signal
import time

import pytest

from oelm_lib import runs, training
from oelm_lib.errors import UserError
from oelm_lib.runs.lock_file import read_record
from tests.faults.test_disk import at_step
from tests.launch.conftest import wait_for
from tests.training.helpers import stop_at

FORK = multiprocessing.get_context("fork")


def open_elsewhere(run):
    """What another process is told that opens the run, or "held"."""

    def answer(connection):
        try:
            again = runs.open_run(run.config, run.seed, run.path.parents[1])
            connection.send("held" if again.lock.held else "shown")
        except UserError as error:
            connection.send(str(error))

    connection, other = FORK.Pipe()
    process = FORK.Process(target=answer, args=(other,))
    process.start()
    said = connection.recv()
    process.join()
    return said


def steps(run):
    lines = (run.path / "metrics.jsonl").read_text().splitlines()
    return [(row["event"], row["step"]) for row in map(json.loads, lines)]


def test_train_again_in_one_kernel_holds_the_lock_again(tiny_run, monkeypatch):
    run = tiny_run()
    with monkeypatch.context() as patch:
        stop_at(patch, 9)
        training.train(run)
    assert not run.lock.held
    said = []
    with monkeypatch.context() as patch:
        at_step(patch, 12, lambda: said.append(open_elsewhere(run)))
        training.train(run)
    assert len(said) == 1
    assert f"in use by process {os.getpid()}" in said[0]
    assert f"oelm stop {run.path}" in said[0]
    assert steps(run) == sorted(set(steps(run)), key=lambda row: (row[1], row[0] == "eval"))
    assert not run.lock.held
    assert open_elsewhere(run) == "shown"


def test_train_is_refused_where_another_process_has_opened_the_run_meanwhile(tiny_run, monkeypatch):
    run = tiny_run()
    with monkeypatch.context() as patch:
        stop_at(patch, 9)
        training.train(run)
    before = {path.name: path.read_bytes() for path in run.path.iterdir()}
    holder = FORK.Process(target=hold, args=(run,), daemon=True)
    holder.start()
    lock = run.path / "lock.json"
    wait_for(lambda: read_record(lock).get("pid") == holder.pid, "the other writer holds the lock")
    (run.path / "STOP").touch()  # a request to the other writer
    try:
        with pytest.raises(UserError, match=f"in use by process {holder.pid}"):
            training.train(run)
    finally:
        os.kill(holder.pid, signal.SIGKILL)
        holder.join()
    assert (run.path / "STOP").exists()
    assert {name: (run.path / name).read_bytes() for name in before} == before


def hold(run):
    run.lock.acquire()
    time.sleep(100)
