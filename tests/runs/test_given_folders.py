"""Folders given by their path: only those of runs are removed."""

import re

import pytest
from click.testing import CliRunner

from oelm_lib.cli import main
from oelm_lib.runs.find import find_run
from oelm_lib.runs.trash import remove_runs


@pytest.mark.parametrize("name", ["seeds", "seeds2024", "seed1.txt", "seed-1", "seed7"])
def test_a_folder_that_is_no_run_stays_and_so_does_the_one_it_lies_in(tmp_path, monkeypatch, name):
    """`oelm rm seeds` moved the user's folder, and removed the one it was called in."""
    work = tmp_path / "work"
    (work / name).mkdir(parents=True)
    (work / name / "data.txt").write_text("mine")
    monkeypatch.chdir(work)
    done = CliRunner().invoke(main, ["rm", name])
    assert done.exit_code == 2 and (work / name / "data.txt").is_file(), done.output
    assert re.search("no run is called|holds no file of a run", done.output), done.output


def test_an_earlier_run_is_removed_and_the_folder_of_a_copy_stays(tmp_path):
    old = tmp_path / "DEMO-01_baseline" / "seed1.20240131-120000-000001"
    old.mkdir(parents=True)
    (old / "config.yaml").write_text("format: 1")
    assert find_run(str(old)) == old
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(old.parent)
        assert find_run(old.name) == old  # so that the run keeps its arm
        patch.chdir(old)
        assert find_run(f"../{old.name}") == old
    remove_runs([old])
    assert not old.parent.exists()
    copy = tmp_path / "work" / "seed1"
    copy.mkdir(parents=True)
    (copy / "config.yaml").write_text("format: 1")
    remove_runs([find_run(str(copy))])
    assert copy.parent.is_dir() and not copy.exists()
