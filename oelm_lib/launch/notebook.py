"""One run as an executed notebook: validated before, watched while it trains, a page after."""

import math
import os
import signal
import sys
import threading
import time
from pathlib import Path
from typing import Any

import psutil

from oelm_lib import config
from oelm_lib.errors import DONE, FAILED, STOPPED, UserError
from oelm_lib.files import replacing, write_json
from oelm_lib.launch.jobs import new_warnings, result_text
from oelm_lib.launch.processes import child_error, is_held_by_another, kill_tree
from oelm_lib.launch.shared_run import train_in_processes
from oelm_lib.report.notebook import KERNEL_DIED, execute
from oelm_lib.report.page import export
from oelm_lib.runs.folder import Run, disk_error, open_run
from oelm_lib.runs.lock import RunInUse
from oelm_lib.runs.logs import NOTEBOOK_LOG
from oelm_lib.runs.names import run_command, run_name
from oelm_lib.runs.reading import known_status, read_summary, read_timing, state
from oelm_lib.runs.schema import ACTIVE, RESUMABLE
from oelm_lib.runs.stop import on_stop, remove_stop_file, write_stop_file
from oelm_lib.units import format_eta

PARTIAL = ".train.{}.part.ipynb"
"""Notebook in execution, by the number of the process that has it executed."""
SILENT_SECONDS = 60.0
"""Age of a heartbeat from which the progress line mentions it."""


# While no kernel runs there is nothing to save, so a signal just ends the command.
@on_stop(lambda number, frame: sys.exit(STOPPED))
def run_experiment(
    exp: str, seed: int, overrides: dict[str, Any], fresh: bool = False, test: bool = False
) -> int:
    """Execute notebooks/train.ipynb for a run into its folder and make its page.

    SIGINT, SIGTERM, SIGUSR1 and SIGHUP ask the trainer to save and stop; a second SIGINT kills it.

    Args:
        fresh: Rename an existing run folder and start over.
        test: Score the finished run on the test split.

    Returns:
        An exit code: DONE, FAILED or STOPPED.

    Raises:
        UserError: The run cannot start, or ended for a reason that the user can fix (a loss that
            is not finite, a full disk or GPU).
    """
    cfg = config.load_config(exp, overrides)
    run = open_run(cfg, seed, fresh=fresh, test=test)
    page = run.path / "train.html"
    if run.finished and page.is_file():
        return _report_done(run, page, test, "was done before")
    remove_stop_file(run.path)
    for leftover in run.path.glob(PARTIAL.format("*")):  # of a process that was killed
        leftover.unlink(missing_ok=True)
    run.lock.release()  # the kernel is the writer
    parameters = {"exp": exp, "seed": seed, "overrides": config.overrides_text(overrides)}
    execution = _Execution(run, parameters, fresh)
    error = execution.wait()
    if isinstance(error, RunInUse):
        raise error  # another process writes the folder; its STOP file stays
    if not is_held_by_another(run.path):
        remove_stop_file(run.path)
    # A page of the failed notebook would stay: a finished run that has a page is skipped.
    if run.finished and error:
        _report_done(run, page, test)
        print(
            f"{run.name}: no page yet ({_same_command(fresh)} makes it), since its notebook failed:"
            f" {error}",
            file=sys.stderr,
        )
        return FAILED
    _make_page(run)
    if run.finished:
        return _report_done(run, page, test)
    return _report_unfinished(run, execution.stop_asked, error, fresh)


def progress_line(path: Path) -> str | None:
    """Return state, step, loss, speed and ETA of a run on one line, from status.json.

    None before the first heartbeat, or where status.json cannot be read.
    """
    status = known_status(path)
    if not status.get("max_steps"):
        return None
    step, steps = status.get("step") or 0, status["max_steps"]
    parts = [f"step {step:,}/{steps:,} ({step / steps:.0%})"]
    if status.get("train_loss"):
        parts.append(f"loss {status['train_loss']:.4f}")
    if status.get("tokens_per_s"):
        parts.append(f"{status['tokens_per_s']:,.0f} tokens/s")
    if status.get("eta_seconds"):
        parts.append(format_eta(status["eta_seconds"]))
    age = time.time() - (status.get("heartbeat") or time.time())
    if age > SILENT_SECONDS:
        parts.append(f"(no heartbeat for {age:.0f} s)")
    return "  ".join([f"{run_name(path)} {status.get('state')}", *parts])


def _report_done(run: Run, page: Path, test: bool, words: str = "is done") -> int:
    """Print a finished run's result and page, and with `test` score it; returns DONE."""
    summary = read_summary(run)
    facts = [result_text(summary)] if summary else []
    facts += [str(page)] if page.is_file() else []
    print(f"{run.name} {words}{': ' if facts else ''}{'; '.join(facts)}")
    if test:
        from oelm_lib.training import score_test_split

        loss = score_test_split(run.path)
        print(f"{run.name}: test_loss {f'{loss:.4f}' if math.isfinite(loss) else 'not finite'}")
    return DONE


def _report_unfinished(
    run: Run, stop_asked: bool, error: BaseException | None, fresh: bool = False
) -> int:
    """Print how a run without a result ended; returns the exit code. Raises UserError.

    The state is not enough: until this session begins, it is that of an earlier one.
    """
    if isinstance(error, UserError):
        if fresh:  # the kernel, whose error this is, knows nothing of --fresh
            print(f"{run.name}: {_next_start(run, fresh)}", file=sys.stderr)
        raise error
    ended = state(run)
    if error is None:  # queued or active: another process has continued it meanwhile
        stopped = stop_asked or ended in ("stopped", "queued", *ACTIVE)
    else:  # a signal to all processes ends the kernel too
        stopped = stop_asked and ended in ("stopped", "dead", "empty", "queued")
    if stopped:
        print(f"{run.name} is stopped; {_next_start(run, fresh)}")
        return STOPPED
    error = error or RuntimeError(
        f"the notebook ended without a result; see {run.path / NOTEBOOK_LOG}"
    )
    text = f"{run.name} failed: {error}; {_next_start(run, fresh)}"
    print(text[-2000:], file=sys.stderr)
    return FAILED


def _next_start(run: Run, fresh: bool) -> str:
    """Return where the next session of a run without a result begins."""
    if any((run.path / f"{name}.pt").is_file() for name in RESUMABLE):
        return f"{_same_command(fresh)} continues it from its last checkpoint"
    return f"nothing is saved yet, so {_same_command(fresh)} starts it again"


def _same_command(fresh: bool) -> str:
    """Return how a run that this command has begun is continued."""
    return "the same command without --fresh" if fresh else "the same command"


class _Execution:
    """The notebook of a run, executed by papermill in a thread.

    The main thread keeps the signals, and the kernel has a session of its own.
    """

    def __init__(self, run: Run, parameters: dict[str, Any], fresh: bool = False):
        self.stop_asked = False
        self._run, self._fresh, self._error = run, fresh, None
        self._shown_warnings: set[str] = set()
        self._command = run_command(run.config.id, run.seed, run.config.overrides)
        self._thread = threading.Thread(target=self._execute, args=(parameters,), daemon=True)

    def wait(self) -> BaseException | None:
        """Show progress until the notebook ends; returns its error, if any."""
        shown = ""
        with on_stop(self._on_signal):
            self._thread.start()
            while self._thread.is_alive():
                self._thread.join(0.2)
                self._show_warnings()
                line = progress_line(self._run.path) if sys.stdout.isatty() else None
                if line and line != shown:
                    sys.stdout.write("\r\033[K" + line)
                    sys.stdout.flush()
                    shown = line
        self._show_warnings()
        if shown:
            print()
        return self._error

    def _show_warnings(self) -> None:
        """Print each warning that the run puts into status.json, once, over a progress line."""
        clear = "\r\033[K" if sys.stdout.isatty() else ""
        for text in new_warnings(self._run.path, self._shown_warnings):
            print(f"{clear}{self._run.name}: warning: {text}", flush=True)

    def _execute(self, parameters: dict[str, Any]) -> None:
        """Train in several processes where the run has them, then execute the notebook."""
        try:
            if self._run.config.machine.devices > 1 and not self._run.finished:
                train_in_processes(self._run, parameters["overrides"], lambda: self.stop_asked)
                if not self._run.finished:
                    return
            self._execute_notebook(parameters)
        except OSError as error:
            self._error = self._error or disk_error(error, self._run.path / "train.ipynb")
        except BaseException as error:
            self._error = error

    def _execute_notebook(self, parameters: dict[str, Any]) -> None:
        """Execute the notebook and put it into place, also where a cell failed.

        It is discarded if the kernel died, since papermill then marks all cells as completed,
        and if another process writes the run.
        """
        from nbclient.exceptions import DeadKernelError
        from papermill.exceptions import PapermillExecutionError

        target = self._run.path / "train.ipynb"
        partial = target.with_name(PARTIAL.format(os.getpid()))  # papermill writes in place
        try:
            with open(self._run.path / NOTEBOOK_LOG, "a", encoding="utf-8") as log:
                execute("train", partial, parameters, self._command, log=log)
        except PapermillExecutionError as error:
            self._error = _cell_error(error)
            if isinstance(self._error, RunInUse):
                partial.unlink(missing_ok=True)
                return
        except BaseException as error:
            partial.unlink(missing_ok=True)
            if isinstance(error, DeadKernelError):
                log = self._run.path / "training.log"
                raise RuntimeError(
                    f"{KERNEL_DIED}; its last step is in {log}; to use less memory, lower"
                    " train.batch_size"
                ) from None
            raise
        with replacing(target) as temporary:
            os.replace(partial, temporary)

    def _on_signal(self, number: int, frame: Any) -> None:
        if self.stop_asked and number == signal.SIGINT:
            self._kill()
        self.stop_asked = True
        if not is_held_by_another(self._run.path):  # else the kernel is refused, and ends by itself
            write_stop_file(self._run.path)
        print(
            "\nstopping: it ends its step or evaluation, then it saves (Ctrl-C again kills it)",
            flush=True,
        )

    def _kill(self) -> None:
        """Kill the kernel or the processes of the run, and this process."""
        for child in psutil.Process().children():
            kill_tree(child.pid)
        print(f"\n{self._run.name} is killed; {_next_start(self._run, self._fresh)}", flush=True)
        os._exit(FAILED)


def _cell_error(error: Any) -> BaseException:
    """Return what went wrong in a cell, on one line."""
    cause = child_error(error.ename, error.evalue)
    if isinstance(cause, UserError):
        return cause
    return RuntimeError(f"{cause} (traceback in train.ipynb)")


def _make_page(run: Run) -> None:
    """Make the page of the executed notebook, and record in timing_stats.json what that took."""
    notebook = run.path / "train.ipynb"
    if not notebook.is_file():
        return
    try:
        run.lock.acquire()  # the kernel, its writer so far, has ended
        start = time.perf_counter()
        export(notebook)
        if timing := read_timing(run):
            timing["budget"]["page"] = time.perf_counter() - start
            write_json(run.path / "timing_stats.json", timing, run.lock.check)
    except (OSError, UserError) as problem:  # the end of the run itself matters more
        print(
            f"no page of {run.name}: {problem}; make it later: oelm report {run.path}",
            file=sys.stderr,
        )
    finally:
        run.lock.release()
