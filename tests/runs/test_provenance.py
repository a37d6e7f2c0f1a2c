"""What made each session of a run is recorded, and a change is announced."""

import hashlib
import subprocess

import pytest

from oelm_lib import config, runs
from oelm_lib.errors import UserError
from oelm_lib.runs.lock import LockLost
from oelm_lib.runs.provenance import code_version, describe_changes, sessions

PARAMETERS = {"total": 1, "trainable": 1, "frozen": 0}
CPU = {"device": "cpu", "threads": 1}


@pytest.fixture
def checkout(tmp_path, monkeypatch):
    """A git checkout in place of the workbook's; a function commits all of it."""
    root = tmp_path / "checkout"
    (root / "reports").mkdir(parents=True)
    monkeypatch.setattr(config, "ROOT", root)
    git = ["git", "-C", root, "-c", "user.name=a", "-c", "user.email=a@b"]

    def commit():
        for call in (["init", "-q"], ["add", "-A"], ["commit", "-q", "-m", "change"]):
            subprocess.run([*git, *call], check=True)

    (root / "code.py").write_text("1\n")
    (root / "reports" / "runs.jsonl").write_text("1\n")
    commit()
    return root, commit


def test_records_that_grow_do_not_make_the_code_dirty(checkout):
    root, _ = checkout
    (root / "reports" / "runs.jsonl").write_text("1\n2\n")
    clean = code_version()
    assert (clean["dirty"], clean["diff_sha256"]) == (False, None)
    assert len(clean["commit"]) == 40
    (root / "code.py").write_text("2\n")
    dirty = code_version()
    assert dirty["dirty"] is True
    (root / "code.py").write_text("3\n")
    assert code_version()["diff_sha256"] != dirty["diff_sha256"]
    assert code_version()["commit"] == clean["commit"]


def test_a_new_file_of_the_library_is_a_change_of_the_code(checkout):
    root, commit = checkout
    (root / "oelm_lib").mkdir()
    (root / "oelm_lib" / "old.py").write_text("1\n")
    (root / ".gitignore").write_text("*.pyc\n")
    commit()
    (root / "notes.txt").write_text("no code\n")
    (root / "oelm_lib" / "old.pyc").write_text("ignored\n")
    assert code_version()["dirty"] is False
    new = root / "oelm_lib" / "two wörds.py"
    found = []
    for text in ("1\n", "2\n"):
        new.write_text(text)
        found.append(code_version())
    assert [code["dirty"] for code in found] == [True, True]
    assert found[0]["diff_sha256"] != found[1]["diff_sha256"]
    new.unlink()
    (root / "code.py").write_text("2\n")
    diff = subprocess.run(["git", "-C", root, "diff"], capture_output=True, check=True).stdout
    # As older versions recorded it: a run that continues warns of no change.
    assert code_version()["diff_sha256"] == hashlib.sha256(diff.strip()).hexdigest()


def test_outside_a_checkout_only_the_version_is_known(tmp_path, monkeypatch):
    monkeypatch.setattr(config, "ROOT", tmp_path)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    code = code_version()
    assert code.pop("version")
    assert set(code.values()) == {None}


def test_each_session_is_recorded_and_what_changed_is_announced(tiny_run, checkout, monkeypatch):
    root, commit = checkout
    run = tiny_run()
    assert run.record_session(0, CPU, PARAMETERS) == []
    assert run.record_session(5, CPU, PARAMETERS) == []
    first = code_version()["commit"]
    (root / "code.py").write_text("2\n")
    (warning,) = run.record_session(10, CPU, PARAMETERS)
    assert f"code was {first[:10]}, is {first[:10]} with uncommitted changes" in warning
    commit()
    (warning,) = run.record_session(15, CPU | {"threads": 2}, PARAMETERS)
    assert "code was" in warning and warning.endswith("; threads was 1, is 2")
    monkeypatch.setattr("platform.python_version", lambda: "9.9")
    (warning,) = run.record_session(20, CPU | {"threads": 2}, PARAMETERS)
    assert "code was" not in warning and "is 9.9" in warning
    plain = runs.read_config(run)
    recorded = sessions(plain)
    assert [session["step"] for session in recorded] == [0, 5, 10, 15, 20]
    assert [session["code"]["dirty"] for session in recorded] == [False, False, True, False, False]
    assert plain["code"] == recorded[0]["code"]
    assert plain["created"] == recorded[0]["started"]
    assert run.record_session(0, CPU, PARAMETERS) == []  # begun again
    assert len(sessions(runs.read_config(run))) == 1


def test_a_lost_config_is_written_again_with_a_warning(tiny_run):
    run = tiny_run()
    run.record_session(0, CPU, PARAMETERS)
    (run.path / "config.yaml").unlink()
    (warning,) = run.record_session(7, CPU, PARAMETERS)
    assert "config.yaml was lost" in warning
    assert [session["step"] for session in sessions(runs.read_config(run))] == [7]


def test_config_is_written_by_the_lock_s_holder_only(tiny_run):
    run = tiny_run()
    run.lock.release()
    with pytest.raises(LockLost):
        run.record_session(0, CPU, PARAMETERS)
    assert not (run.path / "config.yaml").exists()
    with pytest.raises(UserError, match="no config"):
        runs.read_config(run)


def test_a_config_of_an_older_version_has_one_session():
    plain = {"created": "then", "code": {"commit": None}, "versions": {}, "resolved": CPU}
    (session,) = sessions(plain)
    assert (session["started"], session["step"], session["resolved"]) == ("then", 0, CPU)
    now = session | {"code": {"commit": "f" * 40, "dirty": False}}
    assert describe_changes(session, now) == (
        "code was version None, of no git checkout, is ffffffffff"
    )
