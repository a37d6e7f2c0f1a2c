"""Processes of one run that cannot see a stop are ended."""

import subprocess
import sys

import pytest

from oelm_lib.launch.distributed import wait_for_processes

DEAF = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(600)"


@pytest.mark.parametrize("code", ["import time; time.sleep(600)", DEAF])
def test_processes_that_never_met_are_ended_after_a_stop(code):
    process = subprocess.Popen([sys.executable, "-c", code])
    wait_for_processes(process, lambda: True, training=lambda: False, patience=0.2)
    assert process.wait(10) < 0


def test_processes_that_train_end_by_themselves():
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(0.5)"])
    wait_for_processes(process, lambda: True, training=lambda: True, patience=0.1)
    assert process.returncode == 0
