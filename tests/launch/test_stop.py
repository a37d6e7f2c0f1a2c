import os
import signal
import time

import pytest

from oelm_lib.runs.stop import on_stop


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
