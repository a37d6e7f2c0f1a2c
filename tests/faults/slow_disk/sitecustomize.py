"""A disk that takes 1.5 s for a checkpoint: Python imports this file from PYTHONPATH."""

import os
import time

_fsync = os.fsync


def slow_fsync(number):
    if os.readlink(f"/proc/self/fd/{number}").rpartition("/")[2].startswith(".latest.pt"):
        time.sleep(1.5)
    _fsync(number)


os.fsync = slow_fsync
