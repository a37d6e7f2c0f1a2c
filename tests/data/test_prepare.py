import functools
import gzip
import hashlib
import json
import os
import random
import resource
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
    load_tokenizer,
    open_corpus,
    open_test,
    prepare,
    show_corpus,
)
from oelm_lib.data.bpe import train_bpe
from oelm_lib.data.corpus import MANIFEST, check_has_test, checksum
from oelm_lib.data.preparation import _locked
from oelm_lib.data.splits import permuted_split
from oelm_lib.data.tokenizer import bpe_tokenizer, gpt2_tokenizer
from oelm_lib.errors import UserError

from .conftest import STORIES

EOT = 50256


def quiet(line):
    """Take a line of progress."""


gpt2 = functools.cache(gpt2_tokenizer)


def _ids(texts):
    return [rank for ids in gpt2().encode_documents(texts) for rank in [*ids.tolist(), EOT]]


def _is_odd(text):
    return bool(int(hashlib.sha256(text.encode()).hexdigest(), 16) % 2)


def _nothing_left(folder):
    return not any(path.is_dir() for path in folder.glob("*/*")) and not list(
        folder.rglob(MANIFEST)
    )


def test_every_corpus_file_loads():
    assert len(corpus_names()) >= 11
    for name in corpus_names():
        spec = load_spec(name)
        assert (spec.validation == "source") == (spec.validation_fraction is None)
        assert spec.sample or spec.rows or spec.token_limit or spec.generator or spec.recall
    complete = {
        name: load_spec(name).rows["train"]
        for name in ("tinystories", "tinystories-phase3", "openwebtext")
    }
    assert complete == {
        "tinystories": 2_119_719,
        "tinystories-phase3": 2_119_719,
        "openwebtext": 8_013_769,
    }


def test_sample_has_the_rules_of_its_corpus_but_not_the_counts():
    sample, corpus = load_spec("wikitext103-sample"), load_spec("wikitext103")
    assert sample.sample and not corpus.sample and corpus.rows and not sample.rows
    assert sample.document == "article"


@pytest.mark.parametrize("name", ["nope", "stories/../x", 7, "-sample"])
def test_unknown_corpus(name):
    with pytest.raises(
        UserError,
        match=r"no corpus .*; allowed: .*tinystories.*add one as params/corpora/<name>.yaml",
    ):
        load_spec(name)


def test_source_splits_and_halves(source):
    held_out = ["A", "B<|endoftext|>", "", "Two ducks.", "Three ducks.", "E", "F"]
    corpus = prepare("tinystories-sample", source(train=STORIES, validation=held_out), echo=quiet)
    even, odd = ([text for text in held_out if _is_odd(text) is odd] for odd in (False, True))
    assert corpus.tokens("train").tolist() == _ids(STORIES)
    assert corpus.tokens("val").tolist() == _ids(even)
    assert open_test(corpus).tolist() == _ids(odd)
    facts = corpus.manifest["splits"]
    assert facts["train"]["bytes"] == sum(len(text.encode()) for text in STORIES)
    assert {split: facts[split]["documents"] for split in facts} == {
        "train": len(STORIES),
        "val": len(even),
        "test": len(odd),
    }
    assert facts["val"]["literal_eot"] + facts["test"]["literal_eot"] == 1
    assert corpus.manifest["sample"] and not corpus.manifest["synthetic"]
    assert (corpus.vocab_size, corpus.eot) == (50257, EOT)


def test_phase3_permutation_is_that_of_datasets(source):
    import datasets

    texts = [f"Story {number} of a duck." for number in range(1000)]
    corpus = prepare("tinystories-phase3-sample", source(train=texts), echo=quiet)
    split = datasets.Dataset.from_dict({"text": texts}).train_test_split(test_size=0.01, seed=42)
    assert corpus.tokens("train").tolist() == _ids(split["train"]["text"])
    assert corpus.tokens("val").tolist() == _ids(split["test"]["text"])
    with pytest.raises(UserError, match="tinystories-phase3-sample: has no test split"):
        open_test(corpus)


@pytest.mark.parametrize("count", [1, 99, 101, 350, 1001])
def test_permutation_sizes_are_those_of_datasets(count):
    import datasets

    for name in ("tinystories-phase3", "openwebtext"):
        spec = load_spec(name)
        if count * (1 - spec.validation_fraction) < 1:
            continue
        numbers = datasets.Dataset.from_dict({"n": list(range(count))})
        if count == 1:
            continue
        split = numbers.train_test_split(
            test_size=spec.validation_fraction, seed=spec.validation_seed
        )
        kept, held_out = permuted_split(spec, count)
        assert (kept.tolist(), held_out.tolist()) == (split["train"]["n"], split["test"]["n"])


def test_phase3_tail_cuts_the_stream_of_tokens(source):
    texts = [f"Page {number}. " + "Äpfel <|endoftext|> " * (number % 7) for number in range(300)]
    corpus = prepare("openwebtext-phase3-sample", source(train=texts), echo=quiet)
    stream = _ids(texts)
    cut = int(0.99 * len(stream))
    assert stream[cut - 1] != EOT
    assert corpus.tokens("train").tolist() == stream[:cut]
    assert corpus.tokens("val").tolist() == stream[cut:]
    facts = corpus.manifest["splits"]
    assert sum(split["bytes"] for split in facts.values()) == sum(
        len(text.encode()) for text in texts
    )
    tail = gpt2().decode_bytes([rank for rank in stream[cut:] if rank != EOT])
    assert facts["val"]["bytes"] == len(tail) and facts["val"]["literal_eot"] == tail.count(
        b"<|endoftext|>"
    )
    assert facts["val"]["documents"] == stream[cut:].count(EOT)


def test_phase3_tail_stops_after_the_document_that_reaches_the_limit(source, monkeypatch):
    from oelm_lib.data import preparation as module

    texts = [f"Page {number} is short." for number in range(5000)]
    limited = load_spec("openwebtext-phase3-sample").model_copy(update={"token_limit": 999})
    monkeypatch.setattr(module, "load_spec", lambda name: limited)
    corpus = prepare("openwebtext-phase3-sample", source(train=texts), echo=quiet)
    stream = _ids(texts)
    end = stream.index(EOT, 998) + 1
    assert [*corpus.tokens("train"), *corpus.tokens("val")] == stream[:end]


def test_wikitext_phase3_is_one_text_without_separators(source):
    rows = [
        "",
        " = Fox = \n",
        "",
        " Text of the fox . \n",
        "",
        " = Duck = \n",
        "",
        " Quack . \n",
    ] * 40
    corpus = prepare(
        "wikitext103-phase3-sample",
        source(train=rows, validation=rows[:8], test=rows[:4]),
        echo=quiet,
    )
    assert corpus.eot is None
    assert corpus.tokens("train").tolist() == gpt2().encode_documents(["".join(rows)])[0].tolist()
    assert set(corpus.manifest["splits"]) == {"train", "val"}
    for check in (check_has_test, open_test):
        with pytest.raises(UserError, match="wikitext103-phase3-sample: has no test split"):
            check(corpus)


def test_bpe_is_trained_on_train_alone(source):
    train = ["The fox sat on the mat.", "The duck saw the fox."] * 30
    folder = source(train=train, validation=[f"zzzzzzzz qqqq {number}" for number in range(9)])
    corpus = prepare("tinystories-sample", folder, tokenizer="bpe-270", echo=quiet)
    tokenizer = load_tokenizer(corpus)
    assert (corpus.vocab_size, corpus.eot) == (270, 269)
    assert tokenizer.decode(corpus.tokens("train")) == "".join(
        f"{text}<|endoftext|>" for text in train
    )
    assert len(tokenizer.encode_documents(["zzzzzzzz"])[0]) == 8
    permuted = prepare("tinystories-phase3-sample", folder, tokenizer="bpe-270", echo=quiet)
    assert permuted.manifest["splits"]["val"]["documents"] == 1
    with pytest.raises(UserError, match="openwebtext-phase3-sample: is cut by GPT-2 tokens"):
        prepare("openwebtext-phase3-sample", folder, tokenizer="bpe-270", echo=quiet)


def test_same_tokens_from_every_kind_of_file(source, tmp_path):
    folder = source(train=STORIES, validation=["A", "B", "C"] * 5)
    expected = prepare("tinystories-sample", folder, echo=quiet).manifest["splits"]
    lines = "".join(json.dumps({"text": text}) + "\n" for text in STORIES)
    text = "<|endoftext|>\n".join(STORIES)
    for number, (name, content) in enumerate(
        [
            ("train-00000-of-00001.jsonl", lines.encode()),
            ("train.jsonl.gz", gzip.compress(lines.encode())),
            ("train.txt", text.encode()),
            ("train/0000.txt.gz", gzip.compress(text.encode())),
        ]
    ):
        other = tmp_path / f"other{number}"
        (other / name).parent.mkdir(parents=True)
        (other / name).write_bytes(content)
        shutil.copy(folder / "validation.parquet", other / "valid.parquet")
        shutil.rmtree(os.environ["OELM_DATA"])
        assert prepare("tinystories-sample", other, echo=quiet).manifest["splits"] == expected


def test_limit_makes_a_sample(source):
    folder = source(train=STORIES, validation=STORIES)
    with pytest.raises(
        UserError, match="limit = 5: makes a sample of tinystories; name it tinystories-sample"
    ):
        prepare("tinystories", folder, limit=5, echo=quiet)
    corpus = prepare("tinystories-sample", folder, limit=5, echo=quiet)
    assert corpus.tokens("train").tolist() == _ids(STORIES[:5])
    assert corpus.manifest["split_rules"]["limit"] == 5


@pytest.mark.parametrize(
    "name", ["tinystories", "openwebtext", "wikitext103", "openwebtext-phase3"]
)
def test_part_never_passes_for_the_corpus(source, data_folder, name):
    rows = [" = Fox = \n", "", " Text . \n"] * 9
    folder = source(train=rows, validation=rows, test=rows)
    with pytest.raises(
        UserError, match=rf"{name}: the train split of the source has .* {name}-sample"
    ):
        prepare(name, folder, echo=quiet)
    assert _nothing_left(data_folder)


@pytest.mark.parametrize("texts", [[], [""], ["", ""]])
@pytest.mark.parametrize(
    "name", ["tinystories-sample", "openwebtext-phase3-sample", "wikitext103-phase3-sample"]
)
def test_empty_corpus(source, data_folder, name, texts):
    with pytest.raises(
        UserError,
        match=rf"{name}: the train split of the source has no text \(\d rows\); give a source with",
    ):
        prepare(name, source(train=texts, validation=["a", "b"]), echo=quiet)
    assert _nothing_left(data_folder)


def test_split_that_would_be_empty(source, data_folder):
    with pytest.raises(
        UserError, match="the train split would be empty; the source needs more documents"
    ):
        prepare("tinystories-phase3-sample", source(train=["one duck"]), echo=quiet)
    assert _nothing_left(data_folder)


def test_missing_files_are_named(source, tmp_path):
    with pytest.raises(
        UserError, match=r"no validation file for tinystories-sample \(found: train.parquet\)"
    ):
        prepare("tinystories-sample", source(train=STORIES), echo=quiet)
    with pytest.raises(UserError, match="nowhere: no such file or folder"):
        prepare("tinystories-sample", tmp_path / "nowhere", echo=quiet)
    (tmp_path / "a.doc").write_text("x")
    with pytest.raises(UserError, match=r"a.doc: is not text that can be read; name .* \.jsonl"):
        prepare("tinystories-sample", tmp_path / "a.doc", echo=quiet)
    with pytest.raises(
        UserError, match=r"stories: is generated, not read from .*; leave --source out"
    ):
        prepare("stories", tmp_path, echo=quiet)
    with pytest.raises(UserError, match="tokenizer = 'gpt3' is unknown; use gpt2 or bpe-<N>"):
        prepare("tinystories-sample", tmp_path, tokenizer="gpt3", echo=quiet)
    with pytest.raises(UserError, match="bpe-99: N must be 257"):
        prepare("tinystories-sample", tmp_path, tokenizer="bpe-99", echo=quiet)


def test_hub_layout_of_a_folder(source, tmp_path):
    rows = ["", " = Fox = \n", "", " Text . \n"] * 9
    folder = source(train=rows, validation=rows, test=rows)
    (folder / "validation.parquet").rename(folder / "validation-00000-of-00001.parquet")
    folder.rename(tmp_path / "wikitext-103-raw-v1")
    corpus = prepare("wikitext103-sample", tmp_path, echo=quiet)
    assert corpus.manifest["splits"]["val"]["documents"] == 9


def test_full_disk(source, data_folder):
    folder = source(train=STORIES * 99, validation=STORIES)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, before[1]))
    try:
        with pytest.raises(
            UserError,
            match=r"cannot be written .*nothing is left of it; make room there, or set OELM_DATA",
        ):
            prepare("tinystories-sample", folder, echo=quiet)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert _nothing_left(data_folder)


def test_second_preparation_says_who_holds_it(source, data_folder):
    folder = source(train=STORIES, validation=STORIES)
    with _locked(data_folder / "tinystories-sample" / "gpt2", wait=False, echo=quiet):
        holder = f"process {os.getpid()} on {socket.gethostname()} since 20"
        with pytest.raises(
            UserError, match=f"is being prepared by {holder}.*; wait for it to end, or stop it"
        ):
            prepare("tinystories-sample", folder, echo=quiet)
    assert prepare("tinystories-sample", folder, echo=quiet)


def test_killed_preparation_leaves_nothing_that_looks_whole(source, data_folder):
    folder = source(train=STORIES, validation=STORIES[:9])
    program = (
        "import os, sys\nfrom oelm_lib.data import prepare\n"
        "prepare('tinystories-sample', sys.argv[1], echo=lambda line: os.kill(os.getpid(), 9))"
    )
    run = subprocess.run([sys.executable, "-c", program, str(folder)], capture_output=True)
    assert run.returncode == -9
    assert (data_folder / "tinystories-sample" / ".gpt2.part").is_dir()
    assert not (data_folder / "tinystories-sample" / "gpt2").exists()
    corpus = prepare("tinystories-sample", folder, echo=quiet)
    assert sorted(path.name for path in corpus.path.parent.iterdir()) == [".gpt2.lock", "gpt2"]
    assert sorted(path.name for path in corpus.path.iterdir()) == [
        "manifest.json",
        "test.bin",
        "train.bin",
        "val.bin",
    ]


def test_prepared_corpus_stays(source):
    folder = source(train=STORIES, validation=STORIES)
    first = prepare("tinystories-sample", folder, echo=quiet)
    lines = []
    again = prepare(
        "tinystories-sample", source(train=STORIES[:9], validation=STORIES), echo=lines.append
    )
    assert again == first
    assert lines == [f"{first.path} is there already; delete it to make it anew"]


def test_a_reader_that_goes_away_does_not_end_the_preparation(source):
    """As `oelm data prepare NAME | head -1`."""

    def broken_pipe(line):
        lines.append(line)
        raise BrokenPipeError

    def closed_file(line):
        raise ValueError("I/O operation on closed file")

    lines = []
    folder = source(train=STORIES, validation=STORIES)
    assert prepare("tinystories-sample", folder, echo=broken_pipe).path.is_dir()
    assert len(lines) == 1
    assert prepare("tinystories-sample", folder, "bpe-300", echo=closed_file).path.is_dir()


def test_a_folder_without_a_manifest_is_an_error_before_any_work(source, data_folder):
    folder = data_folder / "tinystories-sample" / "gpt2"
    folder.mkdir(parents=True)
    (folder / "train.bin").write_bytes(b"half a copy")
    with pytest.raises(UserError, match=r"gpt2: has no manifest.json, so it is no complete corpus"):
        prepare("tinystories-sample", source(train=STORIES, validation=STORIES), echo=quiet)
    assert (folder / "train.bin").read_bytes() == b"half a copy"


def test_a_limit_holds_for_associative_recall_too():
    corpus = prepare("mqar-sample", tokenizer="ids-40", limit=5, echo=quiet)
    assert {facts["documents"] for facts in corpus.manifest["splits"].values()} == {5}


LONG_TRAINING = """
import os, signal, sys, threading
from oelm_lib.data import bpe, prepare
bpe.WORD_BYTES = 10**9  # the library then needs minutes
threading.Timer(float(sys.argv[2]), os.kill, (os.getpid(), signal.SIGINT)).start()
prepare("tinystories-sample", sys.argv[1], "bpe-512")
"""


def test_ctrl_c_is_heard_while_a_tokenizer_is_trained(tmp_path, data_folder):
    letters = "".join(random.Random(0).choices("acgt", k=400_000))
    for split in ("train", "validation"):
        (tmp_path / f"{split}.jsonl").write_text(json.dumps({"text": split + letters}))
    command = [sys.executable, "-c", LONG_TRAINING, str(tmp_path), "1.5"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == -signal.SIGINT
    assert done.stdout.splitlines() == ["tinystories-sample: training bpe-512"]
    assert done.stderr.rstrip().endswith("KeyboardInterrupt")
    assert _nothing_left(data_folder)


def test_a_word_of_a_million_letters_is_learned_in_parts():
    letters = "".join(random.Random(0).choices("acgt", k=1_000_000))
    content = train_bpe("bpe-512", iter(["some words", letters]))
    tokenizer = bpe_tokenizer(content)
    assert tokenizer.decode(tokenizer.encode_documents([letters])[0]) == letters
    assert json.loads(content)["pre_tokenizer"]["type"] == "ByteLevel"


def test_list_and_show(source, data_folder):
    prepare("tinystories-sample", source(train=STORIES, validation=STORIES), echo=quiet)
    table = list_corpora().set_index("corpus")
    assert table.loc["tinystories-sample", "state"] == "prepared, sample"
    assert table.loc["tinystories-sample", "train_documents"] == "40"
    assert table.loc["tinystories", "state"] == "not prepared"
    assert set(corpus_names()) <= set(table.index)
    text = show_corpus("tinystories-sample", "gpt2", documents=2)
    assert "train: 40 documents, " in text and text.count("--- validation tokens") == 2
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

    corpus = prepare(name, samples / folder, echo=quiet)
    encoding = gpt2()._encoding
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
    assert stories.manifest["checksum"] == checksum(stories.manifest)
    sizes = {split: facts["tokens"] for split, facts in stories.manifest["splits"].items()}
    assert 2_000_000 < sizes["train"] < 2_500_000
    assert all(16_384 < sizes[split] < 24_000 for split in ("val", "test"))
    for path in PARAMS.glob("*.yaml"):
        assert load_spec(path.read_text().split("corpus: ")[1].split()[0])


def test_open_says_where_a_tokenizer_is_wrong():
    with pytest.raises(UserError, match="tokenizer = 'bpe-x' is unknown"):
        open_corpus("stories", "bpe-x")
