import fcntl
import json
import os
import resource
import struct
import subprocess
import sys
import termios
from pathlib import Path

import pytest
from papermill.parameterize import parameterize_path

from oelm_lib.errors import UserError
from oelm_lib.report.notebook import execute, literal_path, own_kernel_manager


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
