"""`make gpu` where there is no GPU, and the run that it stops and continues."""

import importlib.metadata
import shutil
import subprocess
import sys

import pytest

from oelm_lib.config import ROOT
from oelm_lib.runs.provenance import PACKAGES
from tests.gpu import __main__ as gpu_check


def call(*arguments):
    command = [sys.executable, "-m", "tests.gpu", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True)


def test_the_plan_states_minutes_within_the_limit():
    done = call("--dry-run")
    assert done.returncode == 0
    assert "total   8.0 min at most" in done.stdout
    assert sum(stage.minutes for stage in gpu_check.STAGES) <= 8
    assert all(stage.name in done.stdout for stage in gpu_check.STAGES)


def test_make_gpu_asks_for_the_plan_with_dry_and_for_the_check_without():
    if shutil.which("make") is None:
        pytest.skip("no make on this machine")
    for words, option in ((["DRY=1"], "--dry-run"), ([], "")):
        command = ["make", "--no-print-directory", "-n", "gpu", "PYTHON=some-python", *words]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
        assert done.stdout.strip() == f"some-python -m tests.gpu {option}".strip()


def test_without_a_gpu_it_ends_in_one_line():
    import torch

    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    done = call()
    assert done.returncode == 2
    assert done.stderr == (
        "make gpu: no CUDA GPU is visible; check nvidia-smi and CUDA_VISIBLE_DEVICES, or run it on"
        " a GPU node\n"
    )
    assert done.stdout == ""


def test_missing_packages_are_named(monkeypatch):
    monkeypatch.setitem(gpu_check.PACKAGES, "no_such_module", "no-such-package")
    reason = gpu_check.missing_packages()
    assert reason == "this Python lacks no-such-package; pip install no-such-package"


def test_the_packages_whose_versions_a_run_records_are_among_those_that_are_looked_for():
    assert set(PACKAGES) <= set(gpu_check.PACKAGES.values())


def test_a_python_without_the_workbook_is_told_to_install_it(monkeypatch):
    """In a checkout its modules are found all the same, but every run records its version."""

    def version(name):
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "version", version)
    reason = gpu_check.missing_packages()
    assert reason == "this Python lacks the workbook itself; pip install --no-deps -e ."


@pytest.mark.slow
def test_the_rehearsal_is_stopped_and_continued_in_an_outputs_folder_of_its_own(
    stories, tmp_path, monkeypatch
):
    """A run that was made before would be done already, and would not be stopped.

    It has so many steps that it still trains when its stop arrives.
    """
    monkeypatch.setenv("OELM_OUTPUTS", str(tmp_path / "outputs"))
    monkeypatch.setenv("OELM_DATA", str(stories))
    changes = "data.tokenizer=bpe-300 model.vocab_size=300 train.max_steps=500"
    changes += " train.eval_interval=500 train.save_interval=20"
    monkeypatch.setattr(gpu_check, "RUN", ["DEMO-02", "--seed", "1", "--set", changes])
    monkeypatch.setattr(gpu_check, "STOP_STEP", 20)
    ended = gpu_check.run_experiment()
    assert ended["passed"], ended["summary"]
    assert ended["result"]["steps"] == 500
    assert not (tmp_path / "outputs").exists()
