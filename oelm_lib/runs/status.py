"""Run status: status.json with its heartbeat."""

import contextlib
import os
import threading
import time
from pathlib import Path
from typing import Any

from oelm_lib.files import Check, write_json
from oelm_lib.runs.lock import LockLost
from oelm_lib.runs.process import this_process

BEAT_SECONDS = 5.0
"""Longest time between two heartbeats."""


class Status:
    """status.json, rewritten atomically at every change of state and by a thread in between.

    Args:
        path: Run folder.
        check: The `check` of the run's lock; nothing is written where the lock is lost.
        fields: First content of the file.
    """

    def __init__(self, path: Path, check: Check, **fields: Any):
        self._path = path / "status.json"
        self._check = check
        self._fields = {
            "error": None,
            "eta_seconds": None,
            "evals": [],
            "best": None,
            "warnings": [],
            **fields,
            **this_process(),
            "started": time.time(),
            "gpus": os.environ.get("CUDA_VISIBLE_DEVICES"),
        }
        self._lock = threading.Lock()
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._beat, daemon=True, name="heartbeat")
        self.update(state="running")
        self._thread.start()

    def update(self, write: bool = True, **fields: Any) -> None:
        """Change fields; with `write=False` the next heartbeat writes them."""
        with self._lock:
            self._fields |= fields
            if write:
                self._write()

    def close(self, **fields: Any) -> None:
        """Write the last state and end the heartbeat."""
        self._stopped.set()
        self._thread.join()
        self.update(eta_seconds=None, **fields)

    def _beat(self) -> None:
        while not self._stopped.wait(BEAT_SECONDS):
            with self._lock:
                self._write()

    def _write(self) -> None:
        # Neither a full disk nor a lost lock ends the run here: the trainer fails at its next row
        # or save, and reports it.
        with contextlib.suppress(OSError, LockLost):
            write_json(self._path, self._fields | {"heartbeat": time.time()}, self._check)
