import fcntl
import json
import os
import resource
import struct
import subprocess
import sys
import termios
from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_notebook
from papermill.parameterize import parameterize_path

from oelm_lib import config
from oelm_lib.errors import UserError
from oelm_lib.report.notebook import (
    NEVER_REPLIED,
    execute,
    literal_path,
    own_kernel_manager,
    read_notebook,
)


def test_the_kernel_is_this_python_even_if_jupyter_finds_another(tmp_path, monkeypatch):
    folder = tmp_path / "kernels" / "python3"
    folder.mkdir(parents=True)
    foreign = {"argv": ["/foreign/python"], "display_name": "Python 3", "language": "python"}
    (folder / "kernel.json").write_text(json.dumps(foreign))
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path))
    manager = own_kernel_manager()(kernel_name="python3")
    assert manager.kernel_spec.argv[0] == sys.executable


def test_braces_of_a_path_survive_papermill():
    for text in ("o{1}", "o{x}/out.ipynb", "o {seed}", "{{a}}", "plain"):
        assert parameterize_path(literal_path(Path(text)), {"x": 1}) == text


def test_too_low_a_limit_of_open_files_is_one_line_before_a_kernel_starts(tmp_path):
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (63, hard))
    try:
        with pytest.raises(UserError, match=r"ulimit -n: 63 open files are.*64; ulimit -n 1024"):
            execute("train", tmp_path / "out.ipynb", {})
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def kernel_that_fails(tmp_path, monkeypatch):
    """A function that lets the first kernels of a notebook end at once; returns their count."""

    def fail(count):
        starts, python = tmp_path / "starts", tmp_path / "python"
        python.write_text(
            f'#!/bin/sh\necho >> "{starts}"\n[ $(wc -l < "{starts}") -gt {count} ] || exit 1\n'
            f'exec "{sys.executable}" "$@"\n'
        )
        python.chmod(0o755)
        (tmp_path / "notebooks").mkdir()
        spec = {"name": "python3", "display_name": "Python 3", "language": "python"}
        cells = [new_code_cell("print(6 * 7)")]
        notebook = new_notebook(cells=cells, metadata={"kernelspec": spec})
        nbformat.write(notebook, tmp_path / "notebooks" / "tiny.ipynb")
        monkeypatch.setattr(config, "ROOT", tmp_path)
        monkeypatch.setattr(sys, "executable", str(python))
        return lambda: len(starts.read_text().splitlines())

    return fail


@pytest.mark.slow
def test_a_kernel_that_ends_before_the_first_cell_is_started_once_more(kernel_that_fails, tmp_path):
    """As when another process has taken one of its ports."""
    starts = kernel_that_fails(1)
    execute("tiny", tmp_path / "out.ipynb", {})
    (cell,) = read_notebook(tmp_path / "out.ipynb").cells
    assert (cell.outputs[0].text, starts()) == ("42\n", 2)


@pytest.mark.slow
def test_a_kernel_that_never_starts_is_not_tried_for_ever(kernel_that_fails, tmp_path):
    starts = kernel_that_fails(9)
    with pytest.raises(RuntimeError, match=NEVER_REPLIED):
        execute("tiny", tmp_path / "out.ipynb", {})
    assert starts() == 2


@pytest.mark.slow
def test_report_shows_its_progress_on_a_terminal_alone(tmp_path):
    """`oelm report` printed nothing until its page was there."""
    command = [sys.executable, "-m", "oelm_lib.cli", "report", "gpu"]
    environment = os.environ | {"OELM_OUTPUTS": str(tmp_path)}
    reader, writer = os.openpty()
    fcntl.ioctl(writer, termios.TIOCSWINSZ, struct.pack("4H", 24, 100, 0, 0))
    results = [
        subprocess.run(command, env=environment, stdout=subprocess.PIPE, stderr=stream, check=True)
        for stream in (writer, subprocess.PIPE)
    ]
    os.close(writer)
    shown = os.read(reader, 65536).decode()
    os.close(reader)
    assert shown.startswith("\rnotebooks/gpu.ipynb:   0%") and shown.rstrip(" ").endswith("\r")
    assert results[1].stderr == b""
    assert {result.stdout for result in results} == {f"{tmp_path / 'gpu.html'}\n".encode()}
