import importlib.metadata

import pytest
import torch
from click.testing import CliRunner

from oelm_lib.cli import main
from oelm_lib.launch.doctor import doctor
from oelm_lib.training.progress import Progress
from oelm_lib.training.state import TrainingState
from oelm_lib.training.time_trial import run_trial


def test_a_trial_projects_the_time_and_leaves_nothing_behind(tiny_run, tmp_path):
    run, outputs = tiny_run(machine__devices=2), tmp_path / "outputs"  # tried in this one process
    before = sorted(outputs.rglob("*"))
    found = run_trial(run, outputs, steps=4)
    low, high = found["seconds"]
    assert 0 < low <= high < 3600
    assert found["checkpoint_bytes"] > 3 * 4 * 10_000  # weights and two moments in fp32
    assert (found["device"], found["precision"]) == ("cpu", "fp32")
    assert sorted(outputs.rglob("*")) == before


def test_a_trial_counts_the_time_of_saves(tiny_run, tmp_path, monkeypatch):
    saves = []
    monkeypatch.setattr(Progress, "add_save", lambda progress, seconds: saves.append(seconds))
    run_trial(tiny_run(), tmp_path / "outputs", steps=2)
    assert len(saves) == 1 and saves[0] > 0


def test_the_machine_is_described_and_a_folder_that_cannot_be_written_is_reported(
    monkeypatch, tmp_path
):
    monkeypatch.setenv("OELM_OUTPUTS", str(tmp_path / "outputs"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")  # a GPU that fails is not this test's matter
    found = list(doctor(None))
    assert all(fine for fine, _ in found), found
    text = "\n".join(line for _, line in found)
    assert f"torch {importlib.metadata.version('torch')}" in text
    assert "HF_HUB_OFFLINE=1" in text
    assert list((tmp_path / "outputs").iterdir()) == []
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("OELM_OUTPUTS", str(tmp_path / "file"))
    result = CliRunner().invoke(main, ["doctor"])
    assert result.exit_code == 1
    assert "FAIL" in result.output.splitlines()[-1]


@pytest.mark.slow
def test_an_experiment_is_tried_and_a_wrong_one_is_named(monkeypatch, tmp_path, stories):
    monkeypatch.setenv("OELM_OUTPUTS", str(tmp_path / "outputs"))
    monkeypatch.setenv("OELM_DATA", str(stories))
    result = CliRunner().invoke(main, ["doctor", "DEMO-02"])
    assert result.exit_code == 0, result.output
    assert "DEMO-02: corpus and tokenizer whole" in result.output.splitlines()[-1]
    assert "on cpu in fp32" in result.output
    result = CliRunner().invoke(main, ["doctor", "DEMO-99"])
    assert result.exit_code == 1
    assert "FAIL  no experiment 'DEMO-99'" in result.output


@pytest.mark.slow
def test_an_experiment_that_does_not_fit_on_the_gpu_is_reported(monkeypatch, tmp_path, stories):
    def full(state):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 ...")

    monkeypatch.setenv("OELM_OUTPUTS", str(tmp_path / "outputs"))
    monkeypatch.setenv("OELM_DATA", str(stories))
    monkeypatch.setattr(TrainingState, "advance", full)
    found = list(doctor("DEMO-02"))[-1]
    assert found[0] is False
    assert found[1].startswith("DEMO-02: CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0")
