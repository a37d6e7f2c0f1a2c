import io
import sys

import pytest

from oelm_lib.files import write_json
from oelm_lib.launch.notebook import _Execution
from oelm_lib.training import console as console_module
from oelm_lib.training.console import Console


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.fixture(autouse=True)
def just_booted(monkeypatch):
    """Let the clock stand a second after the machine's start."""
    monkeypatch.setattr(console_module.time, "monotonic", lambda: 1.0)


def show(console):
    """Show a progress line, one that is too new, a line that stays, and the last progress line."""
    console.progress("step 1")
    console.progress("step 2")
    console.line("val_loss 1.0")
    console.progress("step 3", last=True)


def test_a_terminal_has_one_progress_line_that_is_replaced(monkeypatch):
    monkeypatch.setattr(sys, "stdout", Terminal())
    calls = []
    show(Console(calls.append))
    assert sys.stdout.getvalue() == "\r\033[Kstep 1\r\033[Kval_loss 1.0\n\r\033[Kstep 3\n"
    assert calls == [False, True]


def test_a_file_has_whole_lines(monkeypatch):
    monkeypatch.setattr(sys, "stdout", io.StringIO())
    show(Console())
    assert sys.stdout.getvalue() == "step 1\nval_loss 1.0\nstep 3\n"


def test_a_warning_of_a_run_takes_the_place_of_a_progress_line(monkeypatch, tiny_run):
    run = tiny_run()
    write_json(run.path / "status.json", {"warnings": ["disk slow"]})
    monkeypatch.setattr(sys, "stdout", Terminal())
    _Execution(run, {})._show_warnings()
    assert sys.stdout.getvalue() == f"\r\033[K{run.name}: warning: disk slow\n"
