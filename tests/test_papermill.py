"""The notebooks as users run them: bare papermill and oelm run."""

import os
import shlex
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest

from oelm_lib import runs
from oelm_lib.config import ROOT, overrides_text
from tests.conftest import TINY_RUN

pytestmark = pytest.mark.slow
BIN = Path(sys.executable).parent
OVERRIDES = overrides_text(TINY_RUN)


@pytest.fixture
def call(stories, tmp_path):
    """A function that runs a command of the environment from the root of the checkout."""
    environment = os.environ | {
        "OELM_DATA": str(stories),
        "OELM_OUTPUTS": str(tmp_path / "outputs"),
    }

    def run(*command):
        return subprocess.run(
            [BIN / command[0], *command[1:]],
            capture_output=True,
            text=True,
            cwd=ROOT,
            env=environment,
            timeout=300,
        )

    return run


def papermill(call, out, *parameters):
    return call("papermill", "notebooks/train.ipynb", str(out), "--no-progress-bar", *parameters)


def test_bare_papermill_trains_and_any_copy_becomes_a_page(call, tmp_path):
    out = tmp_path / "out.ipynb"
    done = papermill(call, out, "-p", "exp", "DEMO-02", "-p", "overrides", OVERRIDES)
    assert done.returncode == 0, done.stderr
    outputs = [output for cell in nbformat.read(out, 4).cells for output in cell.get("outputs", [])]
    kinds = [kind for output in outputs for kind in output.get("data", {})]
    assert "application/vnd.plotly.v1+json" in kinds
    text = "".join(str(output.get("data", {}).get("text/html", "")) for output in outputs)
    assert "Rehearsal, not DEMO-02" in text
    assert "oelm report" in text
    (run,) = runs.find_runs(tmp_path / "outputs")
    assert runs.state(run) == "done"
    page = call("oelm", "report", str(out))
    assert page.returncode == 0, page.stderr
    assert "Rehearsal, not DEMO-02" in out.with_suffix(".html").read_text()


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        (["-p", "exp", "2"], "UserError: exp = 2 is not an experiment id such as GPT-02"),
        (
            ["-p", "overrides", "model.vocab_size=50"],
            "UserError: model.vocab_size = 50, but stories prepared with",
        ),
    ],
)
def test_a_mistake_is_papermills_last_line_and_leaves_no_run(call, tmp_path, parameters, message):
    done = papermill(call, tmp_path / "out.ipynb", *parameters)
    assert done.returncode == 1
    assert message in done.stderr.strip().splitlines()[-1]
    assert runs.find_runs(tmp_path / "outputs") == []


def test_oelm_run_leaves_notebook_and_page_and_the_second_time_only_shows(call, tmp_path):
    command = ["oelm", "run", "DEMO-01", "--seed", "3"]
    command += [
        part for key, value in TINY_RUN.items() for part in ("--set", overrides_text({key: value}))
    ]
    first = call(*command)
    assert first.returncode == 0, first.stderr
    (run,) = runs.find_runs(tmp_path / "outputs")
    assert {"train.ipynb", "train.html", "notebook.log"} <= {path.name for path in run.iterdir()}
    assert runs.read_timing(run)["budget"]["page"] > 0
    before = (run / "train.ipynb").stat().st_mtime_ns
    second = call(*command)
    assert "is done: val_loss " in first.stdout
    assert (second.returncode, "was done before: val_loss " in second.stdout) == (0, True)
    assert (run / "train.ipynb").stat().st_mtime_ns == before


def test_braces_in_the_path_a_foreign_kernel_and_closed_output_spoil_no_run(
    tmp_path, stories, monkeypatch
):
    folder = tmp_path / "jupyter" / "kernels" / "python3"
    folder.mkdir(parents=True)
    foreign = '{"argv": ["/nowhere/python"], "display_name": "Python 3", "language": "python"}'
    (folder / "kernel.json").write_text(foreign)
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path / "jupyter"))
    monkeypatch.setenv("OELM_DATA", str(stories))
    monkeypatch.setenv("OELM_OUTPUTS", "o {seed}")  # relative: below the folder of the command
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    sets = [part for key, value in TINY_RUN.items() for part in ("--set", f"{key}={value}")]
    command = shlex.join([str(BIN / "oelm"), "run", "DEMO-01", *sets])
    done = subprocess.run(["bash", "-c", f"{command} >&-"], cwd=tmp_path, timeout=300)
    assert done.returncode == 0
    (run,) = runs.find_runs(tmp_path / "o {seed}")
    assert runs.state(run) == "done"
    assert (run / "train.html").is_file()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["run", "DEMO-01", "--set", "optim.lr=1"],
            "unknown key optim.lr (did you mean optim.learning_rate?)",
        ),
        (["run"], "no experiment named"),
    ],
)
def test_a_mistake_on_the_command_line_is_one_line_and_exit_code_2(call, arguments, message):
    done = call("oelm", *arguments)
    assert done.returncode == 2
    assert message in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
