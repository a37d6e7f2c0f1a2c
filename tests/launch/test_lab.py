"""Copies of the notebooks: a user's own, in a folder that git ignores."""

import json
import shutil
import subprocess

import pytest

from oelm_lib import compare
from oelm_lib.config import ROOT
from oelm_lib.errors import UserError
from oelm_lib.launch.lab import FOLDER, copy_notebooks, open_lab


@pytest.fixture
def checkout(tmp_path):
    """A git checkout with the notebooks."""
    shutil.copytree(ROOT / "notebooks", tmp_path / "notebooks")
    shutil.copy(ROOT / ".gitignore", tmp_path)
    git = ["git", "-C", tmp_path, "-c", "user.name=a", "-c", "user.email=a@b"]
    for call in (["init", "-q"], ["add", "-A"], ["commit", "-q", "-m", "notebooks"]):
        subprocess.run([*git, *call], check=True)
    return tmp_path


def save(path, old, new):
    """Save a notebook with other text in its cells."""
    text = path.read_text()
    assert json.dumps(old)[1:-1] in text
    path.write_text(text.replace(json.dumps(old)[1:-1], json.dumps(new)[1:-1]))


def test_a_notebook_saved_with_other_parameters_changes_nothing_that_git_tracks(checkout):
    assert copy_notebooks(checkout) == []
    train = checkout / FOLDER / "train.ipynb"
    save(train, 'exp: str = "DEMO-02"', 'exp: str = "DEMO-04"')
    saved = train.read_text()
    assert copy_notebooks(checkout) == [] and train.read_text() == saved
    status = subprocess.run(["git", "-C", checkout, "status", "--porcelain"], capture_output=True)
    assert status.stdout == b""
    names = {path.name for path in (checkout / "notebooks").glob("*.ipynb")}
    assert {path.name for path in (checkout / FOLDER).iterdir()} == names


def test_root_is_told_how_to_start_it(monkeypatch):
    monkeypatch.setattr("os.geteuid", lambda: 0)
    with pytest.raises(UserError, match="oelm lab --allow-root"):
        open_lab(["--no-browser"])


def test_a_new_version_of_a_notebook_is_copied_and_the_old_copy_kept(checkout):
    copy_notebooks(checkout)
    for number in (1, 2):
        save(checkout / FOLDER / "train.ipynb", "seed: int = 42", f"seed: int = {number}42")
        save(checkout / "notebooks" / "train.ipynb", "## Result", f"## Result {number}\n## Result")
        (line,) = copy_notebooks(checkout)
        assert line.endswith(f"your copy of the old one is lab/train-old{number}.ipynb")
        assert (
            f"seed: int = {number}42"
            in (checkout / FOLDER / f"train-old{number}.ipynb").read_text()
        )
        assert f"## Result {number}" in (checkout / FOLDER / "train.ipynb").read_text()
    assert copy_notebooks(checkout) == []


@pytest.mark.parametrize("text", ["{", "[]", "{}", '{"metadata": 1}'])
def test_a_file_that_is_no_copy_stays(checkout, text):
    (checkout / FOLDER).mkdir()
    path = checkout / FOLDER / "train.ipynb"
    path.write_text(text)
    assert copy_notebooks(checkout) == [] and path.read_text() == text


def test_a_folder_that_cannot_be_made_is_one_line(checkout):
    (checkout / FOLDER).write_text("")
    with pytest.raises(UserError, match="lab: a notebook was not copied: File exists"):
        copy_notebooks(checkout)


def test_a_name_that_an_older_notebook_used_is_answered_with_those_there_are():
    with pytest.raises(AttributeError, match=r"no attribute 'answer'; it has .*verdict_cards"):
        _ = compare.answer
