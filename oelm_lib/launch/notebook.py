"""One run as an executed notebook: validated before, watched while, a page after."""

import contextlib
import os
import signal
import sys
import threading
import time
from pathlib import Path
from typing import Any

from oelm_lib import config
from oelm_lib.data.corpus import check_has_test
from oelm_lib.errors import UserError
from oelm_lib.files import replacing, write_json
from oelm_lib.launch.distributed import train_in_processes
from oelm_lib.report.notebook import execute
from oelm_lib.report.page import export
from oelm_lib.report.provenance import run_command
from oelm_lib.runs.folder import Run, disk_error, open_run
from oelm_lib.runs.reading import read_status, read_summary, read_timing, state
from oelm_lib.runs.status import format_eta
from oelm_lib.runs.stop import on_stop

DONE, FAILED, USER_ERROR, STOPPED = 0, 1, 2, 75


@on_stop(
    lambda number, frame: sys.exit(STOPPED)
)  # before the kernel starts and after it ended nothing is unsaved
def run_experiment(
    exp: str, seed: int, overrides: dict[str, Any], fresh: bool = False, test: bool = False
) -> int:
    """Execute notebooks/train.ipynb for a run into its folder and make its page; returns an exit code.

    SIGINT, SIGTERM and SIGUSR1 ask the trainer to save and stop; a second SIGINT stops hard. With `test` the finished
    run is scored on the test split.

    Raises:
        UserError: The run cannot start; nothing was computed or written.
    """
    cfg = config.load_config(exp, overrides)
    run = open_run(cfg, seed, fresh=fresh)
    page = run.path / "train.html"
    if run.finished and page.is_file():
        return _done(run, page, test)
    run.unlock()  # the kernel is the writer
    if test:
        check_has_test(run.corpus)  # now, not after all of the training
    (run.path / "STOP").unlink(missing_ok=True)
    parameters = {"exp": exp, "seed": seed, "overrides": config.as_text(overrides), "fresh": False}
    execution = _Execution(run, parameters)
    error = execution.wait()
    with contextlib.suppress(OSError):
        (run.path / "STOP").unlink(missing_ok=True)
    try:
        _export(run.path / "train.ipynb")
    except (OSError, UserError) as problem:  # the run's own end is the news
        print(
            f"no page of {run.name}: {problem}; make it later: oelm report {run.path}",
            file=sys.stderr,
        )
    if read_summary(run):
        return _done(run, page, test)
    ended = state(run)
    if ended == "stopped" or (execution.asked_to_stop and ended in ("dead", "empty", "queued")):
        print(f"{run.name} is stopped; the same command goes on from its checkpoint")
        return STOPPED
    error = error or RuntimeError(
        "the notebook ended without a result; see notebook.log in the run folder"
    )
    if isinstance(error, UserError):
        raise error
    print(
        f"{run.name} failed: {error}; the same command goes on from the last checkpoint"[-2000:],
        file=sys.stderr,
    )
    return FAILED


def _done(run: Run, page: Path, test: bool) -> int:
    print(f"{run.name} is done: {page}")
    if test:
        from oelm_lib.training.confirm import confirm

        print(f"{run.name}: test_loss {confirm(run.path):.4f}")
    return DONE


class _Execution:
    """papermill in a thread, so that signals stay with this process; the kernel has its own session."""

    def __init__(self, run: Run, parameters: dict[str, Any]):
        self.asked_to_stop = False
        self._run, self._error = run, None
        cfg = run.config
        self._command = run_command(cfg.id, run.seed, cfg.overrides)
        self._thread = threading.Thread(target=self._execute, args=(parameters,), daemon=True)

    def wait(self) -> BaseException | None:
        """Show progress until the notebook ends; returns its error, a user's mistake as UserError."""
        shown = ""
        with on_stop(self._on_signal):
            self._thread.start()
            while self._thread.is_alive():
                self._thread.join(0.5)
                line = progress_line(self._run.path)
                if line and line != shown and sys.stdout.isatty():
                    sys.stdout.write("\r\033[K" + line)
                    sys.stdout.flush()
                    shown = line
        if shown:
            print()
        return self._error

    def _execute(self, parameters: dict[str, Any]) -> None:
        from papermill.exceptions import PapermillExecutionError

        target = self._run.path / "train.ipynb"
        growing = target.with_name(".train.part.ipynb")  # papermill writes in place
        try:
            if self._run.config.machine.devices > 1 and not self._run.finished:
                train_in_processes(self._run, parameters["overrides"])
                if not self._run.finished:
                    return
            try:
                with open(self._run.path / "notebook.log", "a") as log:
                    execute(
                        "train",
                        growing,
                        parameters,
                        self._command,
                        stdout_file=log,
                        stderr_file=log,
                    )
            except PapermillExecutionError as error:
                self._error = _plain_error(error)
            with replacing(target) as temporary:
                os.replace(growing, temporary)
        except OSError as error:
            self._error = self._error or disk_error(error, target)
        except BaseException as error:
            self._error = error

    def _on_signal(self, number: int, frame: Any) -> None:
        if self.asked_to_stop and number == signal.SIGINT:
            self._kill()
        self.asked_to_stop = True
        with contextlib.suppress(OSError):  # the trainer meets the same full or read-only disk
            (self._run.path / "STOP").touch()
        print(
            "\nstopping: waiting for the checkpoint and the notebook's last cells (Ctrl-C again stops hard)",
            flush=True,
        )

    def _kill(self) -> None:
        import psutil

        for child in psutil.Process().children(recursive=True):
            child.kill()
        print(f"\nstopped hard; {self._run.name} goes on from its last checkpoint", flush=True)
        os._exit(FAILED)


def _plain_error(error: Any) -> BaseException:
    """What went wrong in a cell, on one line."""
    if error.ename == "UserError":
        return UserError(error.evalue)
    return RuntimeError(
        f"{error.ename}: {error.evalue}".splitlines()[0] + " (traceback in train.ipynb)"
    )


def progress_line(path: Path) -> str | None:
    """State, step, loss, speed and ETA of a run on one line, from status.json; None before its first heartbeat."""
    status = read_status(path)
    if not status:
        return None
    loss = f"  loss {status['train_loss']:.4f}" if status.get("train_loss") else ""
    speed = f"  {status['tokens_per_s']:,.0f} tokens/s" if status.get("tokens_per_s") else ""
    left = f"  {format_eta(status['eta_seconds'])}" if status.get("eta_seconds") else ""
    share = status["step"] / status["max_steps"]
    age = time.time() - status["heartbeat"]
    silent = f"  (silent for {age:.0f} s)" if age > 60 else ""
    step = f"step {status['step']:,}/{status['max_steps']:,} ({share:.0%})"
    return f"{path.parent.name}/{path.name} {status['state']}  {step}{loss}{speed}{left}{silent}"


def _export(notebook: Path) -> None:
    """Make the page of an executed notebook where there is one, and note in a finished run what that took."""
    if notebook.is_file():
        start = time.perf_counter()
        export(notebook)
        if timing := read_timing(notebook.parent):
            timing["budget"]["page"] = time.perf_counter() - start
            write_json(notebook.parent / "timing_stats.json", timing)
