"""Preparing a corpus: files of every kind, interruptions, what is left behind."""

import contextlib
import errno
import fcntl
import gzip
import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys

import numpy as np
import pytest

from oelm_lib.config import PARAMS
from oelm_lib.data import (
    corpus_names,
    list_corpora,
    load_spec,
    open_corpus,
    open_test,
    prepare,
    show_corpus,
)
from oelm_lib.data.preparation import _locked
from oelm_lib.data.tokenizer import bpe_tokenizer, gpt2_tokenizer, train_bpe
from oelm_lib.errors import UserError
from oelm_lib.files import with_checksum
from tests.full_disk import file_size_limit

from .conftest import STORIES, nothing_left


def test_same_tokens_from_every_kind_of_file(source, tmp_path):
    folder = source(train=STORIES, validation=["A", "B", "C"] * 5)
    expected = prepare("tinystories-sample", folder).manifest["splits"]
    lines = "".join(json.dumps({"text": text}) + "\n" for text in STORIES)
    text = "<|endoftext|>\n".join(STORIES)
    for number, (name, content) in enumerate(
        [
            ("train-00000-of-00001.jsonl", lines.encode()),
            ("train.jsonl.gz", gzip.compress(lines.encode(), mtime=0)),
            ("train.txt", text.encode()),
            ("train/0000.txt.gz", gzip.compress(text.encode(), mtime=0)),
        ]
    ):
        other = tmp_path / f"other{number}"
        (other / name).parent.mkdir(parents=True)
        (other / name).write_bytes(content)
        shutil.copy(folder / "validation.parquet", other / "valid.parquet")
        shutil.rmtree(os.environ["OELM_DATA"])
        assert prepare("tinystories-sample", other).manifest["splits"] == expected


def test_missing_files_are_named(source, tmp_path):
    with pytest.raises(
        UserError, match=r"no validation file for tinystories-sample \(found: train.parquet\)"
    ):
        prepare("tinystories-sample", source(train=STORIES))
    with pytest.raises(UserError, match="nowhere: no such file or folder"):
        prepare("tinystories-sample", tmp_path / "nowhere")
    (tmp_path / "a.doc").write_text("x")
    with pytest.raises(UserError, match=r"a.doc: is not text that can be read; name .* \.jsonl"):
        prepare("tinystories-sample", tmp_path / "a.doc")
    with pytest.raises(
        UserError, match=r"stories: is generated, not read from .*; leave --source out"
    ):
        prepare("stories", tmp_path)
    with pytest.raises(UserError, match="tokenizer = 'gpt3' is unknown; use gpt2 or bpe-<N>"):
        prepare("tinystories-sample", tmp_path, tokenizer="gpt3")
    with pytest.raises(UserError, match="bpe-99: N must be 257"):
        prepare("tinystories-sample", tmp_path, tokenizer="bpe-99")


def test_hub_layout_of_a_folder(source, tmp_path):
    rows = ["", " = Fox = \n", "", " Text . \n"] * 9
    folder = source(train=rows, validation=rows, test=rows)
    (folder / "validation.parquet").rename(folder / "validation-00000-of-00001.parquet")
    folder.rename(tmp_path / "wikitext-103-raw-v1")
    corpus = prepare("wikitext103-sample", tmp_path)
    assert corpus.manifest["splits"]["val"]["documents"] == 9


def test_a_full_disk_is_one_line_and_leaves_nothing(source, data_folder):
    folder = source(train=STORIES * 99, validation=STORIES)
    message = r"File too large; raise the limit of file sizes .*nothing is left of"
    with file_size_limit(20_000), pytest.raises(UserError, match=message):
        prepare("tinystories-sample", folder)
    assert nothing_left(data_folder)


def test_a_second_preparation_names_the_process_of_the_first(source, data_folder, capfd):
    folder = source(train=STORIES, validation=STORIES)
    program = (
        "import sys\nfrom oelm_lib.data import prepare\n"
        "prepare('tinystories-sample', sys.argv[1], limit=9)"
    )
    command = [sys.executable, "-c", program, str(folder)]
    with _locked(data_folder / "tinystories-sample" / "gpt2"):
        second = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        holder = f"process {os.getpid()} on {socket.gethostname()} since 20"
        assert f"is being prepared by {holder}" in second.stdout.readline()
        assert second.poll() is None
    second.communicate(timeout=60)
    assert second.returncode == 0
    assert prepare("tinystories-sample", folder)
    assert "exists already" in capfd.readouterr().out


def test_a_file_system_without_flock_takes_corpora(source, monkeypatch):
    def refuse(file, operation):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", refuse)
    folder = source(train=STORIES, validation=STORIES)
    assert prepare("tinystories-sample", folder)


def test_killed_preparation_leaves_nothing_that_looks_whole(source, data_folder):
    folder = source(train=STORIES, validation=STORIES[:9])
    program = (
        "import builtins, os, sys\nfrom oelm_lib.data import prepare\n"
        "builtins.print = lambda *text, **options: os.kill(os.getpid(), 9)\n"
        "prepare('tinystories-sample', sys.argv[1])"
    )
    run = subprocess.run([sys.executable, "-c", program, str(folder)], capture_output=True)
    assert run.returncode == -9
    assert (data_folder / "tinystories-sample" / ".gpt2.part").is_dir()
    assert not (data_folder / "tinystories-sample" / "gpt2").exists()
    corpus = prepare("tinystories-sample", folder)
    assert sorted(path.name for path in corpus.path.parent.iterdir()) == [".gpt2.lock", "gpt2"]
    assert sorted(path.name for path in corpus.path.iterdir()) == [
        "manifest.json",
        "test.bin",
        "train.bin",
        "val.bin",
    ]


def test_prepared_corpus_stays(source, capsys):
    folder = source(train=STORIES, validation=STORIES)
    first = prepare("tinystories-sample", folder)
    capsys.readouterr()
    assert prepare("tinystories-sample", source(train=STORIES[:9], validation=STORIES)) == first
    line = f"{first.path} exists already; delete it to prepare it again\n"
    assert capsys.readouterr().out == line


def test_a_corpus_that_is_there_needs_no_lock(source, data_folder, capsys):
    """As in a data folder that is read-only; an administrator may write to any, so block it."""
    folder = source(train=STORIES, validation=STORIES)
    first = prepare("tinystories-sample", folder)
    for tokenizer in ("gpt2", "bpe-300"):
        lock = data_folder / "tinystories-sample" / f".{tokenizer}.lock"
        lock.unlink(missing_ok=True)
        lock.mkdir()
    capsys.readouterr()
    assert prepare("tinystories-sample", folder) == first
    assert "gpt2 exists already" in capsys.readouterr().out
    with pytest.raises(UserError, match="nowhere: no such file or folder"):
        prepare("tinystories-sample", folder / "nowhere")
    with pytest.raises(UserError, match=r"cannot be prepared: Is a directory.*OELM_DATA") as caught:
        prepare("tinystories-sample", folder, "bpe-300")
    assert "nothing is left" not in str(caught.value)


def test_a_reader_that_goes_away_does_not_end_the_preparation(source):
    """As `oelm data prepare NAME | head -1`."""
    folder = source(train=STORIES, validation=STORIES)
    with open("/dev/full", "w") as full, contextlib.redirect_stdout(full):
        assert prepare("tinystories-sample", folder).path.is_dir()
        with contextlib.suppress(OSError):
            full.close()
        assert prepare("tinystories-sample", folder, "bpe-300").path.is_dir()


def test_a_folder_without_a_manifest_is_an_error_before_any_work(source, data_folder):
    folder = data_folder / "tinystories-sample" / "gpt2"
    folder.mkdir(parents=True)
    (folder / "train.bin").write_bytes(b"half a copy")
    with pytest.raises(UserError, match=r"gpt2: has no manifest.json, so it is no complete corpus"):
        prepare("tinystories-sample", source(train=STORIES, validation=STORIES))
    assert (folder / "train.bin").read_bytes() == b"half a copy"


LONG_TRAINING = """
import os, signal, sys, threading
from oelm_lib.data import prepare, tokenizer
tokenizer.WORD_BYTES = 10**9  # the library then needs minutes
tokenizer.PROGRESS_SECONDS = 600
takewhile = tokenizer.takewhile
def to_the_end(*arguments):
    yield from takewhile(*arguments)
    # All text is read: from here on the library does not come back to Python.
    threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGINT)).start()
tokenizer.takewhile = to_the_end
prepare("tinystories-sample", sys.argv[1], "bpe-512")
"""


def test_ctrl_c_is_heard_while_a_tokenizer_is_trained(tmp_path, data_folder):
    letters = "".join(random.Random(0).choices("acgt", k=400_000))
    for split in ("train", "validation"):
        (tmp_path / f"{split}.jsonl").write_text(json.dumps({"text": split + letters}))
    command = [sys.executable, "-c", LONG_TRAINING, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == -signal.SIGINT
    assert done.stdout.splitlines() == ["tinystories-sample: training bpe-512"]
    assert done.stderr.rstrip().endswith("KeyboardInterrupt")
    assert nothing_left(data_folder)


def test_a_word_of_a_million_letters_is_learned_in_parts():
    letters = "".join(random.Random(0).choices("acgt", k=1_000_000))
    content = train_bpe("bpe-512", iter(["some words", letters]))
    tokenizer = bpe_tokenizer(content)
    assert tokenizer.decode(tokenizer.encode_documents([letters])[0]) == letters
    assert json.loads(content)["pre_tokenizer"]["type"] == "ByteLevel"


def test_corpora_are_listed_and_shown(source, data_folder):
    prepare("tinystories-sample", source(train=STORIES, validation=STORIES))
    table = list_corpora().set_index("corpus")
    assert table.loc["tinystories-sample", "state"] == "prepared, sample"
    assert table.loc["tinystories-sample", "train_documents"] == "40"
    assert table.loc["tinystories", "state"] == "not prepared"
    assert set(corpus_names()) <= set(table.index)
    text = show_corpus("tinystories-sample", "gpt2", documents=2)
    assert "train: 40 documents, " in text and text.count("--- validation tokens") == 2
    killed = data_folder / "tinystories-sample" / ".gpt2.part"  # before it was renamed
    shutil.copytree(data_folder / "tinystories-sample" / "gpt2", killed)
    assert list_corpora().equals(table.reset_index())
    (data_folder / "tinystories-sample" / "gpt2" / "val.bin").write_bytes(b"")
    assert (
        list_corpora().set_index("corpus").loc["tinystories-sample", "state"].startswith("broken: ")
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "folder"),
    [
        ("tinystories-sample", "tinystories"),
        ("openwebtext-sample", "openwebtext"),
        ("tinyshakespeare", "tinyshakespeare"),
        ("wikitext2", "wikitext2_v1"),
        ("wikitext103-sample", "wikitext103"),
    ],
)
def test_real_text_encodes_as_tiktoken_does(samples, name, folder):
    import pyarrow.parquet

    corpus = prepare(name, samples / folder)
    encoding = gpt2_tokenizer()._encoding
    for split, file in (("train", "train"), ("val", "validation"), ("test", "test")):
        if not (samples / folder / f"{file}.parquet").is_file():
            continue
        rows = pyarrow.parquet.read_table(samples / folder / f"{file}.parquet")["text"].to_pylist()
        tokens = np.array(open_test(corpus) if split == "test" else corpus.tokens(split))
        documents = np.split(tokens, np.flatnonzero(tokens == corpus.eot) + 1)[:-1]
        texts = [encoding.decode(ids[:-1]) for ids in documents]
        if load_spec(name).test == "source" or split == "train":
            assert "".join(texts) == "".join(rows)
        for text, ids in zip(texts, documents, strict=True):
            assert encoding.encode_ordinary(text) == ids[:-1].tolist()
        if name.startswith("wikitext"):
            assert len(texts) == {"train": {"wikitext2": 600}.get(name, 52)}.get(split, 60)
        elif split == "train":
            assert texts == rows


def test_open_prepares_stories_and_experiments_name_corpora_that_exist(stories):
    assert stories.manifest["synthetic"] and not stories.manifest["sample"]
    assert stories.manifest == with_checksum(stories.manifest)
    sizes = {split: facts["tokens"] for split, facts in stories.manifest["splits"].items()}
    assert 2_000_000 < sizes["train"] < 2_500_000
    assert all(16_384 < sizes[split] < 24_000 for split in ("val", "test"))
    for path in PARAMS.glob("*.yaml"):
        assert load_spec(path.read_text().split("corpus: ")[1].split()[0])


def test_open_says_where_a_tokenizer_is_wrong():
    with pytest.raises(UserError, match="tokenizer = 'bpe-x' is unknown"):
        open_corpus("stories", "bpe-x")
