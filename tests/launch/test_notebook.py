"""One run through `oelm run`: its lock, its exit code, its page."""

import contextlib
import errno
import json
import math
import shutil
import signal
from pathlib import Path

import nbformat
import papermill
import pytest
from click.testing import CliRunner
from nbclient.exceptions import DeadKernelError
from nbformat.v4 import new_code_cell, new_notebook
from papermill.exceptions import PapermillExecutionError

from oelm_lib import config, training
from oelm_lib.cli import main
from oelm_lib.errors import DONE, FAILED, IN_USE, STOPPED, UserError
from oelm_lib.files import read_json, write_json
from oelm_lib.launch.jobs import make_jobs
from oelm_lib.launch.notebook import (
    _Execution,
    _make_page,
    _report_done,
    _report_unfinished,
    run_experiment,
)
from oelm_lib.runs import lock as runs_lock
from oelm_lib.runs.folder import open_run
from tests.runs.test_lock import Writer


def test_no_page_is_made_while_another_process_writes_the_run(tiny_run, capsys):
    run = tiny_run()
    run.lock.release()
    (run.path / "train.ipynb").write_text("{}")
    timing = run.path / "timing_stats.json"
    write_json(timing, {"budget": {"step": 1.0}}, checksum=True)
    before = timing.read_bytes()
    writer = Writer(run.path)
    try:
        assert writer("acquire") == "held"
        _make_page(run)
    finally:
        writer.die()
    error = capsys.readouterr().err
    assert "no page of" in error and f"in use by process {writer.process.pid}" in error
    assert timing.read_bytes() == before
    assert not (run.path / "train.html").exists()


def test_a_run_in_use_by_another_process_has_an_exit_code_of_its_own(tiny_env, tiny):
    (job,) = make_jobs(["DEMO-02"], [1], tiny())
    job.path.mkdir(parents=True)
    writer = Writer(job.path)
    try:
        assert writer("acquire") == "held"
        changes = [f"--set={key}={value}" for key, value in tiny().items()]
        done = CliRunner().invoke(main, ["run", "DEMO-02", "--seed", "1", *changes])
    finally:
        writer.die()
    assert done.exit_code == IN_USE
    (line,) = [line for line in done.output.splitlines() if line.startswith("oelm: ")]
    assert line.startswith(f"oelm: {job.path}: in use by process {writer.process.pid}")


def test_a_missing_test_split_is_reported_before_anything_is_written(
    tiny_env, tiny, stories, tmp_path, monkeypatch
):
    data = shutil.copytree(stories, tmp_path / "data")
    monkeypatch.setenv("OELM_DATA", str(data))
    manifest = data / "stories" / "bpe-300" / "manifest.json"
    facts = read_json(manifest)
    del facts["splits"]["test"]
    write_json(manifest, facts)
    (job,) = make_jobs(["DEMO-02"], [1], tiny())
    with pytest.raises(UserError, match="stories: has no test split"):
        run_experiment("DEMO-02", 1, tiny(), test=True)
    assert not tiny_env.exists()
    job.path.mkdir(parents=True)
    with pytest.raises(UserError, match="stories: has no test split"):
        run_experiment("DEMO-02", 1, tiny(), fresh=True, test=True)
    assert list(job.path.parent.iterdir()) == [job.path]


def test_a_page_that_was_not_made_is_not_named(tiny_run, capsys):
    run = tiny_run()
    page = run.path / "train.html"
    assert _report_done(run, page, test=False) == DONE
    page.write_text("")
    _report_done(run, page, test=False)
    assert capsys.readouterr().out == f"{run.name} is done\n{run.name} is done: {page}\n"


def test_a_finished_run_is_printed_with_its_result(tiny_run, capsys):
    run = tiny_run()
    page = run.path / "train.html"
    page.touch()
    summary = {"steps": 24, "best_val_loss": 1.5, "final_val_loss": 1.5}
    write_json(run.path / "summary.json", summary)
    assert _report_done(run, page, test=False, words="was done before") == DONE
    result = f"val_loss 1.5000, perplexity {math.exp(1.5):.3f}"
    assert capsys.readouterr().out == f"{run.name} was done before: {result}; {page}\n"


@pytest.mark.parametrize(
    ("problem", "written", "message"),
    [
        (DeadKernelError("Kernel died"), '{"metadata": {}}', "its kernel died without a message"),
        (OSError(errno.ENOSPC, "No space left on device"), '{"metada', "device; free the disk"),
    ],
)
def test_no_notebook_is_kept_after_a_killed_kernel_or_a_full_disk(
    tiny_run, monkeypatch, problem, written, message
):
    run = tiny_run()
    before = set(run.path.iterdir())

    def execute_notebook(source, target, **options):
        Path(target).write_text(written)  # papermill writes what there is, in place
        raise problem

    monkeypatch.setattr(papermill, "execute_notebook", execute_notebook)
    parameters = {"exp": run.config.id, "seed": run.seed, "overrides": ""}
    assert message in str(_Execution(run, parameters).wait())
    assert {path.name for path in set(run.path.iterdir()) - before} == {"notebook.log"}


def test_the_page_of_an_earlier_session_does_not_pass_for_that_of_the_result(
    tiny_env, tiny, monkeypatch, capsys
):
    (job,) = make_jobs(["DEMO-02"], [1], tiny())
    job.path.mkdir(parents=True)
    page = job.path / "train.html"
    for name in ("train.ipynb", "train.html"):
        (job.path / name).write_text("stopped at step 7")
    cell = new_code_cell("run_page.result(run)", execution_count=1, outputs=[])
    endings = [
        DeadKernelError("Kernel died"),
        PapermillExecutionError(0, 1, "", "NameError", "no such figure", []),
        None,
    ]

    def execute_notebook(source, target, **options):
        training.train(open_run(config.load_config("DEMO-02", tiny()), 1))
        nbformat.write(new_notebook(cells=[cell]), target)
        if error := endings.pop(0):
            raise error

    monkeypatch.setattr(papermill, "execute_notebook", execute_notebook)
    for reason in ("its kernel died", "NameError: no such figure (traceback in train.ipynb)"):
        assert run_experiment("DEMO-02", 1, tiny()) == FAILED
        printed = capsys.readouterr()
        assert "seed1 is done: val_loss" in printed.out and "train.html" not in printed.out
        assert "no page yet (the same command makes it)" in printed.err and reason in printed.err
        assert not page.exists()
    assert run_experiment("DEMO-02", 1, tiny()) == DONE
    assert capsys.readouterr().out.endswith(f"; {page}\n") and "stopped" not in page.read_text()
    assert run_experiment("DEMO-02", 1, tiny()) == DONE  # nothing is left to execute
    assert "was done before" in capsys.readouterr().out


@pytest.fixture
def other_writer(monkeypatch):
    """A function that lets a process, as if not started by this one, hold the lock of a folder."""
    monkeypatch.setattr(runs_lock, "BEAT_SECONDS", 1e6)  # no digits into what is written here
    writers = []

    def hold(path):
        writers.append(Writer(path))
        assert writers[-1]("acquire") == "held"
        lock = path / "lock.json"
        lock.write_text(json.dumps(read_json(lock) | {"pid": 1}))
        return writers[-1]

    yield hold
    for writer in writers:
        writer.process.kill()
        writer.process.join()


def test_a_run_that_another_process_has_opened_meanwhile_is_left_alone(
    tiny_env, tiny, monkeypatch, other_writer
):
    (job,) = make_jobs(["DEMO-02"], [1], tiny())
    before = set()

    def execute_notebook(source, target, **options):
        other_writer(job.path)
        for name in ("STOP", "train.ipynb"):
            (job.path / name).write_text("the other's")
        before.update(job.path.iterdir())
        Path(target).write_text('{"metadata": {}}')
        raise PapermillExecutionError(0, 1, "", "RunInUse", "in use by process 1", [])

    monkeypatch.setattr(papermill, "execute_notebook", execute_notebook)
    with pytest.raises(UserError, match="in use by process 1") as caught:
        run_experiment("DEMO-02", 1, tiny())
    assert caught.value.exit_code == IN_USE
    assert set(job.path.iterdir()) == before
    assert (job.path / "train.ipynb").read_text() == "the other's"


def test_ctrl_c_stops_no_run_of_another_process(tiny_run, other_writer):
    run = tiny_run()
    run.lock.release()
    writer = other_writer(run.path)
    _Execution(run, {})._on_signal(signal.SIGTERM, None)
    assert not (run.path / "STOP").exists()
    writer.die()
    _Execution(run, {})._on_signal(signal.SIGTERM, None)
    assert (run.path / "STOP").exists()


KERNEL_DIED = RuntimeError("its kernel died")


@pytest.mark.parametrize(
    ("state", "stop_asked", "error", "code"),
    [
        ("stopped", False, None, STOPPED),  # by oelm stop
        ("queued", False, None, STOPPED),  # continued while this process made the page
        ("stopped", False, KERNEL_DIED, FAILED),  # `stopped` is of an earlier session
        ("stopped", True, KERNEL_DIED, STOPPED),  # a signal to all processes
        ("failed", True, None, STOPPED),  # ended before it began; `failed` is of an earlier session
        ("failed", True, KERNEL_DIED, FAILED),
        ("failed", False, None, FAILED),
        ("running", True, KERNEL_DIED, STOPPED),  # dead
        ("running", False, KERNEL_DIED, FAILED),
    ],
)
def test_the_exit_code_of_a_run_without_a_result(tiny_run, capsys, state, stop_asked, error, code):
    run = tiny_run()
    run.lock.release()
    write_json(run.path / "status.json", {"state": state, "step": 3, "max_steps": 24})
    assert _report_unfinished(run, stop_asked, error) == code
    printed = capsys.readouterr()
    assert printed.out.count("is stopped") == (code == STOPPED)
    assert printed.err.count("its kernel died") == (code == FAILED and error is not None)
    assert "nothing is saved yet, so the same command starts it again" in printed.out + printed.err
    (run.path / "latest.pt").touch()
    _report_unfinished(run, stop_asked, error)
    printed = capsys.readouterr()
    assert "continues it from its last checkpoint" in printed.out + printed.err
    with pytest.raises(UserError, match="the disk is full"):
        _report_unfinished(run, stop_asked, UserError("the disk is full"))


@pytest.mark.parametrize("error", [None, KERNEL_DIED, UserError("the disk is full")])
def test_a_run_that_fresh_has_begun_is_continued_without_it(tiny_run, capsys, error):
    run = tiny_run()
    run.lock.release()
    for words in ("without --fresh starts it again", "without --fresh continues it from its last"):
        with contextlib.suppress(UserError):
            _report_unfinished(run, False, error, fresh=True)
        printed = capsys.readouterr()
        assert words in printed.out + printed.err
        (run.path / "latest.pt").touch()
