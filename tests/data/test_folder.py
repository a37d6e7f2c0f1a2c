"""Local sources: which files make a split; no text is dropped or read twice silently."""

import gzip
import json
import os
import shutil
import subprocess
import sys

import pytest

from oelm_lib.data import load_spec, open_test, prepare
from oelm_lib.data.folder import find_splits
from oelm_lib.errors import UserError

NAMES = ("train", "validation", "test")


def write(folder, name, *texts):
    """Write texts as a file of JSON lines (or plain text, or gzipped)."""
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = "".join(json.dumps({"text": text}) + "\n" for text in texts)
    content = "".join(texts) if ".txt" in name else lines
    path.write_bytes(gzip.compress(content.encode()) if name.endswith(".gz") else content.encode())
    return path


@pytest.fixture
def folder(tmp_path):
    """A folder with the three splits as JSON lines."""
    for name in NAMES:
        write(tmp_path / "source", f"{name}.jsonl", f"{name} text")
    return tmp_path / "source"


@pytest.fixture
def notes():
    """Notes of what was found."""
    return []


@pytest.fixture
def find(notes):
    """A function from a folder to the relative files of each split of tinyshakespeare-sample."""

    def find(folder, name="tinyshakespeare-sample"):
        found, new_notes = find_splits(folder, load_spec(name))
        notes.extend(new_notes)
        return {
            split: [os.path.relpath(path, folder) for path in paths]
            for split, paths in found.items()
        }

    return find


@pytest.mark.parametrize("name", ["test", "train", "validation", "val", "caf\udce9"])
def test_the_name_of_the_source_folder_says_nothing(folder, find, name):
    other = folder.rename(folder.with_name(name))
    assert find(other) == {split: [f"{split}.jsonl"] for split in NAMES}


def test_a_source_folder_named_test_keeps_train_out_of_the_test_split(folder):
    other = folder.rename(folder.with_name("test"))
    corpus = prepare("tinyshakespeare-sample", other)
    assert corpus.manifest["splits"]["test"]["documents"] == 1
    assert len(open_test(corpus)) == 3


def test_a_name_that_says_two_splits_is_refused(folder, find):
    write(folder, "train/test.jsonl", "?")
    with pytest.raises(UserError, match=r"train/test.jsonl: its name says test and train; rename"):
        find(folder)


@pytest.mark.parametrize(
    "extra",
    [
        "train.jsonl.gz",
        "train.txt",
        "train-00000-of-00001.jsonl",
        "backup/train.jsonl",
        "train/0000.jsonl",
    ],
)
def test_two_versions_of_a_split_are_refused_by_name(folder, find, extra):
    write(folder, extra, "the same text, or other text")
    with pytest.raises(UserError, match="the train split would be read from both") as caught:
        find(folder)
    assert str(folder / extra) in str(caught.value)
    assert str(folder / "train.jsonl") in str(caught.value)


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("valid.jsonl", "val.jsonl"),
        ("validation-00000-of-00001-aa.jsonl", "validation-00000-of-00001-bb.jsonl"),
        ("validation-00000-of-00002.jsonl", "validation-00001-of-00003.jsonl"),
        ("validation/a.jsonl", "validation/a.jsonl.gz"),
        ("a/validation/0.jsonl", "b/validation/0.jsonl"),
    ],
)
def test_two_sets_of_parts_are_refused(folder, find, first, second):
    (folder / "validation.jsonl").unlink()
    write(folder, first, "a")
    write(folder, second, "b")
    with pytest.raises(UserError, match="the validation split would be read from both"):
        find(folder)


def test_a_missing_part_is_named_but_a_sample_may_lack_it(folder, find):
    (folder / "train.jsonl").unlink()
    write(folder, "train-00000-of-00003.jsonl", "a")
    write(folder, "train-00002-of-00003.jsonl", "c")
    with pytest.raises(UserError, match="part 1 of the 3 of the train split is missing; complete"):
        find(folder, "tinyshakespeare")
    assert len(find(folder)["train"]) == 2


def test_a_name_with_a_huge_count_is_refused_at_once(folder, find):
    """The numbers of all parts were listed first."""
    (folder / "train.jsonl").unlink()
    write(folder, "train-00000-of-99999999999999.jsonl", "a")
    with pytest.raises(UserError, match="part 1 of the 99999999999999 of the train split"):
        find(folder, "tinyshakespeare")


def test_a_part_beyond_the_count_of_its_set_is_refused(folder, find):
    (folder / "train.jsonl").unlink()
    write(folder, "train-00000-of-00001.jsonl", "a")
    write(folder, "train-00001-of-00001.jsonl", "b")
    with pytest.raises(UserError, match=r"train-00001-of-00001.jsonl: .* no part 1 of 1"):
        find(folder)


def test_files_deep_in_a_split_folder_are_read_and_parts_are_in_numeric_order(folder, find):
    (folder / "train.jsonl").unlink()
    for name in ("train/b/10.jsonl", "train/b/9.jsonl", "train/a/100.jsonl", "train/b/x².jsonl"):
        write(folder, name, name)
    expected = ["train/a/100.jsonl", "train/b/9.jsonl", "train/b/10.jsonl", "train/b/x².jsonl"]
    assert find(folder)["train"] == expected


def test_hidden_files_are_left_out_and_other_files_are_mentioned(folder, find, notes):
    (folder / "train.jsonl").unlink()
    for name in ("0.jsonl", "._0.jsonl", ".ipynb_checkpoints/0-checkpoint.jsonl", "1.JSONL"):
        write(folder, f"train/{name}", name)
    write(folder, "__MACOSX/train/0.jsonl", "a copy")
    assert find(folder)["train"] == ["train/0.jsonl"]
    assert notes == ["1 other files are not read, e.g. train/1.JSONL"]


def test_links_to_split_folders_are_followed(folder, tmp_path, find):
    for name in NAMES:
        target = tmp_path / "elsewhere" / name
        write(target, "0.jsonl", name)
        (folder / f"{name}.jsonl").unlink()
        (folder / name).symlink_to(target)
    assert find(folder) == {name: [f"{name}/0.jsonl"] for name in NAMES}


@pytest.mark.parametrize("name", ["train.jsonl", "train"])
def test_a_broken_link_is_named(folder, find, name):
    (folder / "train.jsonl").unlink()
    (folder / name).symlink_to("../../blobs/1")
    with pytest.raises(UserError, match=rf"{name}: its link leads to ../../blobs/1, which is not"):
        find(folder)


def test_a_wrong_source_is_an_error_even_where_the_corpus_is_prepared(folder):
    prepare("tinyshakespeare-sample", folder)
    (folder / "train.jsonl").unlink()
    (folder / "train.jsonl").symlink_to("nowhere")
    with pytest.raises(UserError, match="its link leads to nowhere"):
        prepare("tinyshakespeare-sample", folder)


def test_one_text_in_two_splits_by_a_link_is_refused(folder, find, notes):
    (folder / "test.jsonl").unlink()
    os.link(folder / "train.jsonl", folder / "test.jsonl")
    with pytest.raises(UserError, match=r"are one file by a link; remove one"):
        find(folder)
    (folder / "test.jsonl").unlink()
    shutil.copy(folder / "train.jsonl", folder / "test.jsonl")
    find(folder)
    assert notes[-1].endswith("test.jsonl have the same content")


def test_a_link_to_a_folder_above_is_refused(folder, find):
    (folder / "again").symlink_to(folder)
    with pytest.raises(UserError, match=r"again: a link leads to .* a second time; remove one"):
        find(folder)


def test_a_folder_that_may_not_be_listed_is_an_error(folder):
    """As another user (by setpriv), since root may list everything."""
    setpriv = shutil.which("setpriv")
    if os.getuid() or not setpriv:
        pytest.skip("needs root and setpriv")
    (folder / "train.jsonl").unlink()
    write(folder, "train/0.jsonl", "a")
    (folder / "train").chmod(0)
    program = (
        "import sys\nfrom oelm_lib.data.folder import find_splits\n"
        "from oelm_lib.data import load_spec\nfrom pathlib import Path\n"
        "find_splits(Path(sys.argv[1]), load_spec('tinyshakespeare-sample'))"
    )
    drop = "--bounding-set=-dac_override,-dac_read_search"
    os.chown(folder / "train", 65534, 65534)
    command = [setpriv, drop, sys.executable, "-c", program, str(folder)]
    done = subprocess.run(command, capture_output=True, text=True)
    (folder / "train").chmod(0o700)
    assert "train: cannot be listed (Permission denied); ask for access" in done.stderr


def test_the_configuration_folder_alone_is_searched(folder, find):
    other = folder.rename(folder.with_name("wikitext-2-v1"))
    write(other.parent, "wikitext-2-raw-v1/train.jsonl", "other text")
    assert find(other.parent, "wikitext2-sample")["train"] == ["wikitext-2-v1/train.jsonl"]
    other.rename(other.with_name("wikitext-3"))
    with pytest.raises(UserError, match="the train split would be read from both"):
        find(other.parent, "wikitext2-sample")


def test_a_path_that_is_not_utf8_works(folder):
    import pyarrow
    import pyarrow.parquet

    for name in NAMES:
        (folder / f"{name}.jsonl").unlink()
        table = pyarrow.table({"text": [f"{name} text"]})
        pyarrow.parquet.write_table(table, folder / f"{name}.parquet")
    other = folder.rename(folder.with_name("caf\udce9"))
    corpus = prepare("tinyshakespeare-sample", other)
    assert corpus.manifest["source"]["path"].endswith(r"/caf\xe9")
