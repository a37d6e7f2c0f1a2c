"""One writer in a run folder, tested with processes, namespaces and clocks that differ."""

import errno
import itertools
import json
import multiprocessing
import os
import signal
import time

import pytest

from oelm_lib.errors import UserError
from oelm_lib.files import write_json
from oelm_lib.runs import lock
from oelm_lib.runs.lock import LockLost, RunLock, in_use, is_locked
from oelm_lib.runs.status import Status

FORK = multiprocessing.get_context("fork")
LONG = 60.0
"""Seconds for which a live writer is watched; the watch ends at its first beat."""


def serve(connection, folder, host):
    """Obey commands in a child process: names of RunLock's methods."""
    be_on(host)
    writer = RunLock(folder)
    for command in iter(connection.recv, "exit"):
        try:
            getattr(writer, command)()
            connection.send("held" if writer.held else "free")
        except UserError as error:
            connection.send(f"{type(error).__name__}: {error}")


def be_on(host):
    """Make this process look as if it ran on another host, whose `flock` no other one sees.

    Args:
        host: (name, seconds its clock is ahead, seconds it watches), or None for this host.
    """
    if host is None:
        return
    name, ahead, watch = host

    def no_flock(file, operation):
        raise OSError(errno.ENOLCK, "No locks available")

    true_time = time.time
    lock.fcntl.flock = no_flock
    lock.boot_id = lambda: name
    time.time = lambda: true_time() + ahead
    lock.BEAT_SECONDS, lock.WATCH_SECONDS, lock.PATIENCE_SECONDS = 0.02, watch, 0.1


class Writer:
    """A child process that holds or wants the lock."""

    def __init__(self, folder, host=None):
        self.connection, other = FORK.Pipe()
        self.process = FORK.Process(target=serve, args=(other, folder, host), daemon=True)
        self.process.start()
        other.close()

    def __call__(self, command):
        self.connection.send(command)
        return self.connection.recv()

    def die(self):
        os.kill(self.process.pid, signal.SIGKILL)
        self.process.join()


@pytest.fixture
def writer(tmp_path):
    """A function that starts a Writer in this test's folder."""
    writers = []

    def start(host=None):
        writers.append(Writer(tmp_path, host))
        return writers[-1]

    yield start
    for each in writers:
        each.process.kill()
        each.process.join()


def test_a_second_process_is_refused_until_the_first_releases(writer, own, tmp_path):
    first = writer()
    assert first("acquire") == "held"
    with pytest.raises(UserError, match=rf"in use by process {first.process.pid} on \S+ since 20"):
        own.acquire()
    assert not own.held
    assert first("release") == "free"
    assert list(tmp_path.iterdir()) == []
    own.acquire()
    assert own.held
    assert first("acquire").startswith(f"RunInUse: {tmp_path}: in use by process {os.getpid()}")


def test_the_refusal_names_what_helps(own, tmp_path):
    own.acquire()
    reached_by_no_stop = (
        "it does not train now, so oelm stop does not reach it: if it makes the page"
    )
    assert reached_by_no_stop in str(in_use(tmp_path))
    assert "a notebook that has opened the run (open_run), restart its kernel" in str(
        in_use(tmp_path)
    )
    write_json(tmp_path / "status.json", {"state": "evaluating", "pid": os.getpid()})
    assert f"stop it (oelm stop {tmp_path})" in str(in_use(tmp_path))
    write_json(tmp_path / "status.json", {"state": "stopped", "pid": os.getpid()})
    assert reached_by_no_stop in str(in_use(tmp_path))
    write_json(tmp_path / "status.json", {"state": "running", "pid": 0})
    assert reached_by_no_stop in str(in_use(tmp_path))


def test_what_a_killed_starter_took_away_is_removed_by_the_next_one(own, tmp_path):
    (tmp_path / ".lock.0123456789abcdef.dead").touch()
    own.acquire()
    assert [path.name for path in tmp_path.iterdir()] == ["lock.json"]


def test_a_process_may_acquire_again_and_all_its_locks_of_a_folder_are_one(own, tmp_path):
    other = RunLock(tmp_path / "." / "")
    own.acquire()
    own.acquire()
    assert other.held
    other.acquire()
    before = (tmp_path / "lock.json").read_bytes()
    other.release()
    assert not own.held
    other.release()
    own.acquire()
    assert json.loads((tmp_path / "lock.json").read_bytes())["token"] not in before.decode()


def test_a_forked_child_does_not_own_its_parents_lock(own, writer):
    own.acquire()
    child = writer()
    assert child("release") == "free"
    assert "not opened for writing by this process" in child("check")
    assert child("acquire").startswith("RunInUse")
    own.check()


def test_a_dead_writer_of_this_host_leaves_its_lock_without_a_watch(
    writer, own, tmp_path, monkeypatch
):
    monkeypatch.setattr(lock, "WATCH_SECONDS", 1e6)
    first = writer()
    first("acquire")
    first.die()
    own.acquire()
    assert [path.name for path in tmp_path.iterdir()] == ["lock.json"]


def test_a_paused_writer_on_this_host_keeps_its_lock(writer, own, monkeypatch):
    monkeypatch.setattr(lock, "PATIENCE_SECONDS", 0.1)
    first = writer()
    first("acquire")
    os.kill(first.process.pid, signal.SIGSTOP)
    with pytest.raises(UserError, match="in use"):
        own.acquire()
    os.kill(first.process.pid, signal.SIGCONT)
    assert first("check") == "held"


@pytest.mark.parametrize("content", ["", "torn{", "[1]", "{}", "[" * 40_000, '{"token": null}'])
def test_a_damaged_lock_of_a_live_writer_refuses_others_and_stops_the_writer(
    writer, own, tmp_path, monkeypatch, content
):
    monkeypatch.setattr(lock, "PATIENCE_SECONDS", 0.1)
    first = writer()
    first("acquire")
    (tmp_path / "lock.json").write_text(content)
    with pytest.raises(UserError, match="in use by a process that its damaged"):
        own.acquire()
    assert first("check").startswith("LockLost")
    first.die()
    monkeypatch.setattr(lock, "WATCH_SECONDS", 0.1)
    own.acquire()


def test_a_lock_without_a_pid_is_refused_in_one_line(writer, own, tmp_path, monkeypatch):
    monkeypatch.setattr(lock, "PATIENCE_SECONDS", 0.1)
    monkeypatch.setattr(lock, "BEAT_SECONDS", 1e6)  # no digits into what is written here
    first = writer()
    first("acquire")
    record = json.loads((tmp_path / "lock.json").read_text())
    del record["pid"]
    (tmp_path / "lock.json").write_text(json.dumps(record))
    with pytest.raises(UserError, match="does not name"):
        own.acquire()


def test_a_deleted_lock_stops_its_writer(own, tmp_path):
    own.acquire()
    (tmp_path / "lock.json").unlink()
    with pytest.raises(LockLost, match=r"lock\.json was deleted.*writes nothing more"):
        own.check()
    with pytest.raises(LockLost):
        own.acquire()
    own.release()
    own.acquire()


def test_only_its_owner_removes_a_lock(writer, own, tmp_path):
    own.acquire()
    (tmp_path / "lock.json").unlink()
    second = writer()
    assert second("acquire") == "held"
    with pytest.raises(LockLost, match=f"process {second.process.pid} on .* has taken it over"):
        own.check()
    own.release()
    assert second("check") == "held"


@pytest.mark.parametrize("host", [None, ("elsewhere", 0.0, 1.0)], ids=["flock", "no flock"])
def test_of_many_starters_at_a_dead_writers_lock_exactly_one_wins(writer, tmp_path, host):
    starters = [writer(host) for _ in range(6)]
    for _ in range(3):
        dead = writer(host)
        dead("acquire")
        dead.die()
        for starter in starters:
            starter.connection.send("acquire")
        for starter in starters:
            starter.connection.recv()
        kept = [starter for starter in starters if starter("check") == "held"]
        assert len(kept) == 1
        for starter in starters:
            starter("release")
        assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("ahead", [-3600.0, 0.0, 3600.0])
def test_a_live_writer_on_another_host_is_seen_by_its_heartbeat_at_any_clock(writer, ahead):
    first, second = writer(("far", ahead, LONG)), writer(("near", 0.0, LONG))
    assert first("acquire") == "held"
    assert second("acquire").startswith("RunInUse")
    assert first("check") == "held"


def test_a_writer_whose_host_was_suspended_stops_when_it_wakes(writer):
    first, second = writer(("far", 0.0, 1.0)), writer(("near", 0.0, 1.0))
    first("acquire")
    os.kill(first.process.pid, signal.SIGSTOP)
    os.waitpid(first.process.pid, os.WUNTRACED)  # the thread of its beat has stopped too
    assert second("acquire") == "held"
    os.kill(first.process.pid, signal.SIGCONT)
    message = first("check")
    assert message.startswith("LockLost")
    assert f"process {second.process.pid}" in message
    assert first("release") == "free"
    assert second("check") == "held"


def test_a_status_that_is_still_written_keeps_a_lock_without_a_beat(own, tmp_path, monkeypatch):
    monkeypatch.setattr(lock, "WATCH_SECONDS", LONG)
    (tmp_path / "lock.json").write_text('{"pid": 1, "host": "old", "since": "then"}')

    def write_status():
        for count in itertools.count():
            write_json(tmp_path / "status.json", {"heartbeat": count})
            time.sleep(0.05)

    other = FORK.Process(target=write_status, daemon=True)
    other.start()
    try:
        with pytest.raises(UserError, match="in use by process 1 on old since then"):
            own.acquire()
    finally:
        other.kill()
        other.join()
    monkeypatch.setattr(lock, "WATCH_SECONDS", 1.0)
    own.acquire()


def test_is_locked_tells_a_live_writer_from_a_dead_one_and_from_one_elsewhere(writer, tmp_path):
    assert is_locked(tmp_path) is False
    first = writer()
    first("acquire")
    assert is_locked(tmp_path) is True
    first.die()
    assert is_locked(tmp_path) is False
    (tmp_path / "lock.json").write_text('{"boot": "elsewhere"}')
    assert is_locked(tmp_path) is None


def test_a_lost_lock_stops_every_kind_of_write(own, tmp_path):
    from oelm_lib.runs.metrics import AppendFile

    own.acquire()
    status = Status(tmp_path, own.check, step=1)
    rows = AppendFile(tmp_path / "rows.jsonl", 0, own.check)
    rows.write("kept")
    write_json(tmp_path / "result.json", {"kept": 1}, own.check)
    (tmp_path / "lock.json").unlink()
    with pytest.raises(LockLost):
        rows.write("lost")
    with pytest.raises(LockLost):
        write_json(tmp_path / "result.json", {"lost": 1}, own.check)
    with pytest.raises(LockLost):
        AppendFile(tmp_path / "rows.jsonl", 0, own.check)
    status.close(state="done")
    assert (tmp_path / "rows.jsonl").read_text() == "kept\n"
    assert json.loads((tmp_path / "result.json").read_text()) == {"kept": 1}
    assert json.loads((tmp_path / "status.json").read_text())["state"] == "running"


def test_a_lock_that_a_full_disk_does_not_take_is_removed(own, tmp_path, monkeypatch):
    def refuse(*arguments):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "pwrite", refuse)
        with pytest.raises(UserError, match="No space left on device; free the disk"):
            own.acquire()
    assert list(tmp_path.iterdir()) == []
    assert is_locked(tmp_path) is False
    own.acquire()
    assert own.held


def test_a_folder_that_cannot_be_written_is_one_line(tmp_path):
    with pytest.raises(UserError, match="cannot write here: No such file or directory; create the"):
        RunLock(tmp_path / "missing").acquire()
