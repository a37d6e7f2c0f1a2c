"""Small files: whole or not at all, bounded, verified."""

import errno
import fcntl
import json
import multiprocessing
import os
import subprocess
import sys
import threading

import pytest

from oelm_lib import files
from oelm_lib.errors import UserError
from oelm_lib.yaml_text import DEPTH, parse_yaml

FORK = multiprocessing.get_context("fork")


def append_many(path, name, count):
    for number in range(count):
        files.append_line(path, f"{name} {number}")


def test_lines_of_several_processes_are_all_kept_in_each_ones_order(tmp_path):
    path = tmp_path / "made" / "too" / "rows.jsonl"
    writers = [FORK.Process(target=append_many, args=(path, name, 50)) for name in "abcd"]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    lines = path.read_text().splitlines()
    for name in "abcd":
        assert [line for line in lines if line.startswith(name)] == [
            f"{name} {number}" for number in range(50)
        ]
    assert len(lines) == 200


def test_a_line_that_comes_while_a_torn_one_is_cut_is_kept(tmp_path, monkeypatch):
    path = tmp_path / "rows.jsonl"
    path.write_text("first\ntor")
    cut, appended = threading.Event(), []
    truncate = os.ftruncate

    def slow_truncate(file, length):
        cut.set()
        appended.append(other_appended.wait(0.3))
        truncate(file, length)

    def append_other():
        cut.wait()
        files.append_line(path, "other")
        other_appended.set()

    other_appended = threading.Event()
    monkeypatch.setattr(files.os, "ftruncate", slow_truncate)
    other = threading.Thread(target=append_other)
    other.start()
    files.append_line(path, "own")
    other.join()
    assert appended == [False]  # the other writer waited for its turn
    assert path.read_text() == "first\nown\nother\n"


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("", "new\n"),
        ("a\n", "a\nnew\n"),
        ("torn", "new\n"),
        ("a\nb\ntorn", "a\nb\nnew\n"),
        ("a\n" + "x" * 200_000, "a\nnew\n"),
        ("y" * 200_000 + "\n", "y" * 200_000 + "\nnew\n"),
        ("\n", "\nnew\n"),
        ("\n\n", "\n\nnew\n"),
        ('a\n{"b": 1}', 'a\n{"b": 1}\nnew\n'),
        ('a\n{"b": 1', "a\nnew\n"),
        ("a\n1", "a\nnew\n"),
    ],
)
def test_only_a_torn_tail_is_cut(tmp_path, before, after):
    path = tmp_path / "rows"
    path.write_text(before)
    files.append_line(path, "new")
    assert path.read_text() == after


def test_a_long_line_of_any_letters_is_written_whole(tmp_path):
    text = "ä€𝄞" * 100_000
    files.append_line(tmp_path / "rows", text)
    assert (tmp_path / "rows").read_text() == text + "\n"


def test_a_line_is_not_appended_where_the_whole_lines_say_so(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text("first\nsecond\ntor")
    found = []
    assert not files.append_line(path, "third", lambda lines: not found.append(lines))
    assert found == [b"first\nsecond\n"]
    assert path.read_text() == "first\nsecond\ntor"
    assert files.append_line(path, "third", lambda lines: b"third" in lines)
    assert path.read_text() == "first\nsecond\nthird\n"


def test_without_flock_a_line_is_still_appended_and_other_errors_are_raised(tmp_path, monkeypatch):
    answers = [OSError(errno.ENOLCK, "no locks"), OSError(errno.EIO, "broken")]

    def flock(file, operation):
        raise answers.pop(0)

    monkeypatch.setattr(files.fcntl, "flock", flock)
    files.append_line(tmp_path / "rows", "one")
    with pytest.raises(OSError, match="broken"):
        files.append_line(tmp_path / "rows", "two")
    assert (tmp_path / "rows").read_text() == "one\n"


def test_a_file_is_locked_for_one_descriptor_at_a_time(tmp_path):
    with open(tmp_path / "lock", "w+b") as first, open(tmp_path / "lock", "r+b") as other:
        assert files.lock_exclusively(first.fileno(), 0.0) is True
        assert files.lock_exclusively(other.fileno(), 0.06) is False
        fcntl.flock(first, fcntl.LOCK_UN)
        assert files.lock_exclusively(other.fileno(), 0.0) is True


def test_both_writers_bring_the_bytes_to_the_disk_before_they_count(tmp_path, monkeypatch):
    synced, own = [], threading.get_ident()
    fsync, replace = os.fsync, os.replace

    def record_fsync(file):
        if threading.get_ident() == own:  # the beat of a run that another test left open syncs too
            synced.append(os.fstat(file).st_size)
        fsync(file)

    def record_replace(source, target):
        assert synced == [os.stat(source).st_size]
        replace(source, target)

    monkeypatch.setattr(files.os, "fsync", record_fsync)
    monkeypatch.setattr(files.os, "replace", record_replace)
    files.write_text(tmp_path / "text", "content")
    assert synced == [7]
    files.append_line(tmp_path / "rows", "a line")
    assert synced == [7, 7]


def test_a_file_that_fails_midway_leaves_the_old_one_and_nothing_else(tmp_path):
    path = tmp_path / "text"
    files.write_text(path, "old")
    with pytest.raises(ZeroDivisionError), files.replacing(path) as temporary:
        temporary.write_text("new")
        raise ZeroDivisionError
    with pytest.raises(RuntimeError, match="not mine"):
        files.write_json(path, {}, refuse)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def refuse():
    raise RuntimeError("not mine")


def test_numbers_that_json_does_not_have_become_null(tmp_path):
    value = {"a": [1.5, float("nan")], "b": (float("inf"), {"c": -float("inf")}), "d": "é"}
    files.write_json(tmp_path / "x.json", value)
    assert files.read_json(tmp_path / "x.json") == {
        "a": [1.5, None],
        "b": [None, {"c": None}],
        "d": "é",
    }
    assert "é" in (tmp_path / "x.json").read_text(encoding="utf-8")
    files.write_json(tmp_path / "x.json", {"a": [1]})
    assert (tmp_path / "x.json").read_text() == '{\n "a": [\n  1\n ]\n}\n'


def test_a_missing_file_is_none_and_a_broken_one_is_one_line(tmp_path):
    path = tmp_path / "x.json"
    assert files.read_json(path) is None
    assert files.read_json(path / "below") is None
    for content in ("{", "", "\x00", "[" * 400_000, '{"a": ' * 400_000, "1" * 5000):
        path.write_text(content)
        with pytest.raises(UserError, match="not readable as JSON"):
            files.read_json(path)
    path.write_bytes(b'{"a": "\xff"}')
    with pytest.raises(UserError, match="not readable as JSON"):
        files.read_json(path)
    path.write_text("[1]")
    with pytest.raises(UserError, match="holds list, not an object"):
        files.read_json(path)
    path.unlink()
    path.mkdir()
    with pytest.raises(UserError, match="cannot be read: Is a directory; a folder stands"):
        files.read_json(path)


RESULT = {
    "loss": 1.2345678901234567,
    "steps": 100,
    "names": ["a", "ü"],
    "none": None,
    "nan": 1e-320,
}


def test_any_changed_byte_of_a_result_is_found(tmp_path):
    path = tmp_path / "summary.json"
    files.write_json(path, files.with_checksum(RESULT | {"bad": float("nan")}))
    good = path.read_bytes()
    value = files.read_json(path)
    assert value["loss"] == RESULT["loss"]
    assert value["bad"] is None
    kept = 0
    for place in range(len(good)):
        path.write_bytes(good[:place] + bytes([good[place] ^ 1]) + good[place + 1 :])
        try:
            found = files.read_json(path)
        except UserError:
            continue
        # Whitespace, or the key of the checksum itself: the result is as it was.
        assert {key: found[key] for key in value if key != "checksum"} == {
            key: value[key] for key in value if key != "checksum"
        }
        kept += 1
    assert kept < 40


def test_a_checksum_is_written_where_asked_and_renewed_where_the_value_has_one(tmp_path):
    path = tmp_path / "summary.json"
    files.write_json(path, RESULT)
    assert "checksum" not in files.read_json(path)
    files.write_json(path, RESULT, checksum=True)
    sealed = files.read_json(path)
    assert sealed == files.with_checksum(RESULT)
    files.write_json(path, sealed | {"loss": 2.0})
    assert files.read_json(path) == files.with_checksum(RESULT | {"loss": 2.0})


def test_files_are_utf8_whatever_the_locale(tmp_path):
    path = tmp_path / "x.json"
    script = (
        "import sys\nfrom pathlib import Path\nfrom oelm_lib import files\n"
        "path = Path(sys.argv[1])\nfiles.write_json(path, {'d': '\\u00e9'})\n"
        "assert files.read_json(path) == {'d': '\\u00e9'}\n"
    )
    ascii_only = {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"}
    command = [sys.executable, "-c", script, path]
    subprocess.run(command, check=True, env=os.environ | ascii_only)
    assert "é".encode() in path.read_bytes()


def test_a_checksum_covers_all_keys_but_itself_in_any_order():
    sealed = files.with_checksum({"a": 1, "b": (2, 3)})
    assert files.with_checksum(sealed) == sealed
    assert files.with_checksum({"b": [2, 3], "a": 1}) == sealed
    assert files.with_checksum({"a": 1, "b": [2, 4]})["checksum"] != sealed["checksum"]


def test_deep_yaml_ends_in_an_error_and_not_in_the_interpreter():
    code = """
from oelm_lib.yaml_text import parse_yaml
for text in ("[" * 40000, "{a: " * 40000, "- " * 40000, "? " * 40000, "&a [" * 40000):
    try:
        parse_yaml(text)
    except ValueError as error:
        print("nested more than 100 deep" in str(error))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout == "True\n" * 5, done.stderr
    nested = "[" * DEPTH + "]" * DEPTH
    assert json.dumps(parse_yaml(nested)) == nested
    with pytest.raises(ValueError, match="nested more"):
        parse_yaml(f"[{nested}]")
    with pytest.raises(ValueError, match="nested more"):
        parse_yaml(f"[{'[], ' * 60}{nested}]")
    assert parse_yaml("a: [1, 2]\nb: {c: null}") == {"a": [1, 2], "b": {"c": None}}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a:\n  d_model: 2\n  num_heads 4\n  d: 3", "line 3: `num_heads 4`: a ':' is missing"),
        ("a: 1\nnum_heads 4\n", "line 2: `num_heads 4`: a ':' is missing"),
        ("a:\n\tb: 1", "line 2: `b: 1`: a tab; indent with spaces"),
        ("a:\n  b: 1\n\tc: 2", "line 3: `c: 2`: a tab; indent with spaces"),
        ("a:\n  b: 1\n c: 2", "line 3: `c: 2`: wrong indentation"),
        ("a: b: c", "line 1: `a: b: c`: a ':' is not allowed here; quote the text"),
        ("a: [0.9, 1\nb: 2", "line 1: `a: [0.9, 1`: a ',' or ']' is missing"),
        ("a: [", "line 1: `a: [`: a value or a closing bracket is missing"),
        ("a: 'x\nb: 1", "line 1: `a: 'x`: its quotation mark is not closed"),
        ("a: @x", "line 1: `a: @x`: no value starts with this; quote the text"),
        ("a: 1\na: 2", "line 2: `a: 2`: the key a is given twice; keep one"),
        ("a: \0", "unacceptable character #x0000: control characters are not allowed"),
    ],
)
def test_a_mistake_in_yaml_is_one_line_that_shows_its_place(text, message):
    with pytest.raises(ValueError) as caught:
        parse_yaml(text)
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)


def test_digests_are_those_of_sha256(tmp_path):
    (tmp_path / "file").write_bytes(b"abc")
    digest = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert files.sha256_file(tmp_path / "file") == digest
    assert files.sha256_json({"a": 1, "b": 2}) == files.sha256_json({"b": 2, "a": 1})
    assert files.sha256_json({"a": 1}) != files.sha256_json({"a": 2})


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (errno.ENOSPC, "free the disk"),
        (errno.EMFILE, "ulimit -n"),
        (errno.EACCES, "permissions"),
        (errno.EROFS, "can be written"),
        (errno.EXDEV, "check the disk and the permissions"),
    ],
)
def test_the_remedy_fits_the_error(number, words):
    assert words in files.remedy(OSError(number, "text"))
