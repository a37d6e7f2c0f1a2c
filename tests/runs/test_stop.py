import os
import signal
import time

import pytest

from oelm_lib.errors import UserError
from oelm_lib.files import write_json
from oelm_lib.runs import stop
from oelm_lib.runs.process import this_process
from oelm_lib.runs.reading import state
from oelm_lib.runs.stop import ask_to_stop, on_stop, stop_file, write_stop_file


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGHUP])
def test_every_signal_of_a_stop_reaches_the_handler_and_is_given_back(number):
    before = signal.getsignal(number)
    received = []
    with on_stop(lambda number, frame: received.append(number)):
        os.kill(os.getpid(), number)
        time.sleep(0.01)
    assert received == [number]
    assert signal.getsignal(number) == before


def test_nohup_keeps_a_closed_terminal_ignored():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with on_stop(lambda number, frame: pytest.fail("SIGHUP was not ignored")):
            os.kill(os.getpid(), signal.SIGHUP)
            time.sleep(0.01)
            assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


def test_the_stop_file_is_looked_for_once_a_second(tmp_path, monkeypatch):
    now = [100.0]
    monkeypatch.setattr(stop.time, "monotonic", lambda: now[0])
    is_asked = stop.StopRequest(tmp_path)
    assert not is_asked()
    (tmp_path / "STOP").touch()
    now[0] += stop.FILE_SECONDS - 0.01
    assert not is_asked()
    now[0] += 0.02
    assert is_asked()
    (tmp_path / "STOP").unlink()
    now[0] += 10.0
    assert is_asked()  # a request is not taken back


def test_a_request_is_written_before_the_folder_exists_and_where_no_disk_takes_it(tmp_path):
    write_stop_file(tmp_path / "arm" / "seed1")
    assert stop_file(tmp_path / "arm" / "seed1").is_file()
    (tmp_path / "file").touch()
    write_stop_file(tmp_path / "file" / "seed1")  # a signal's handler must not raise
    assert (tmp_path / "file").is_file()


def test_a_second_interrupt_stops_at_once(tmp_path):
    is_asked = stop.StopRequest(tmp_path)
    with on_stop(is_asked.on_signal):
        os.kill(os.getpid(), signal.SIGTERM)
        assert is_asked()
        os.kill(os.getpid(), signal.SIGTERM)  # only Ctrl-C is impatient
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)


def test_only_a_writer_of_another_host_is_asked_although_it_looks_dead(tmp_path):
    status = this_process() | {"state": "running", "heartbeat": time.time() - 3600}
    write_json(tmp_path / "lock.json", {"boot": "another"})
    write_json(tmp_path / "status.json", status)
    with pytest.raises(UserError, match="dead, so there is nothing to stop"):  # before a reboot
        ask_to_stop(tmp_path)
    write_json(tmp_path / "status.json", status | {"host": "another"})
    assert state(tmp_path) == "dead"
    ask_to_stop(tmp_path)
    assert stop_file(tmp_path).is_file()
