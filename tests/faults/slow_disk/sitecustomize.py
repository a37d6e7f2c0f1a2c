"""A disk that takes SLOW_DISK_SECONDS for a checkpoint: Python imports this from PYTHONPATH."""

import os
import time

_fsync = os.fsync
_seconds = float(os.environ.get("SLOW_DISK_SECONDS", "1.5"))


def slow_fsync(number):
    if os.readlink(f"/proc/self/fd/{number}").rpartition("/")[2].startswith(".latest.pt"):
        time.sleep(_seconds)
    _fsync(number)


os.fsync = slow_fsync
