"""Split rules: which documents become train, val and test, and what is too small for them."""

import functools
import hashlib
import tracemalloc

import numpy as np
import pytest

from oelm_lib.data import (
    corpus_names,
    encode,
    load_spec,
    load_tokenizer,
    open_test,
    prepare,
    readers,
)
from oelm_lib.data.corpus import check_has_test
from oelm_lib.data.splits import permuted_split
from oelm_lib.data.tokenizer import gpt2_tokenizer
from oelm_lib.errors import UserError

from .conftest import STORIES, nothing_left

EOT = 50256


gpt2 = functools.cache(gpt2_tokenizer)


def _ids(texts):
    return [rank for ids in gpt2().encode_documents(texts) for rank in [*ids.tolist(), EOT]]


def _is_odd(text):
    return bool(int(hashlib.sha256(text.encode()).hexdigest(), 16) % 2)


def test_every_corpus_file_loads():
    assert len(corpus_names()) >= 11
    for name in corpus_names():
        spec = load_spec(name)
        # A user's own corpus, which is not on the hub, need not say its size.
        assert not spec.hub or spec.sample or spec.rows or spec.token_limit
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
    corpus = prepare("tinystories-sample", source(train=STORIES, validation=held_out))
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
    corpus = prepare("tinystories-phase3-sample", source(train=texts))
    split = datasets.Dataset.from_dict({"text": texts}).train_test_split(test_size=0.01, seed=42)
    assert corpus.tokens("train").tolist() == _ids(split["train"]["text"])
    assert corpus.tokens("val").tolist() == _ids(split["test"]["text"])
    with pytest.raises(UserError, match="tinystories-phase3-sample: has no test split"):
        open_test(corpus)


@pytest.mark.parametrize("count", [99, 101, 350, 1001])
@pytest.mark.parametrize("name", ["tinystories-phase3", "openwebtext"])
def test_permutation_sizes_are_those_of_datasets(name, count):
    import datasets

    spec = load_spec(name)
    numbers = datasets.Dataset.from_dict({"n": list(range(count))})
    split = numbers.train_test_split(test_size=spec.validation_fraction, seed=spec.validation_seed)
    kept, held_out = permuted_split(spec, count)
    assert (kept.tolist(), held_out.tolist()) == (split["train"]["n"], split["test"]["n"])


@pytest.mark.parametrize("block", [1, 3, encode.DECODED])
def test_phase3_tail_cuts_the_stream_of_tokens(source, monkeypatch, block):
    monkeypatch.setattr(encode, "DECODED", block)
    texts = [f"Page {number}. " + "Äpfel <|endoftext|> " * (number % 7) for number in range(300)]
    corpus = prepare("openwebtext-phase3-sample", source(train=texts))
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


def test_a_long_document_is_cut_and_written_without_being_held_in_memory(tmp_path):
    count = 1 << 19
    pattern = gpt2().encode_documents([" A duck <|endoftext|>"])[0]
    ids = np.resize(pattern, count).astype("<u2")
    ids.tofile(tmp_path / "source")
    documents = encode.Encoded(tmp_path / "source")
    documents.append(count, 0, 0, 0)
    tracemalloc.start()
    try:
        assert documents.cut(9999 * len(pattern), gpt2(), EOT) == 1
        facts = documents.write(np.array([0, 1]), tmp_path / "target")
        assert tracemalloc.get_traced_memory()[1] < 4_000_000  # the ids as numbers take 18 MB
    finally:
        tracemalloc.stop()
    assert np.fromfile(tmp_path / "target", "<u2").tolist() == ids.tolist()
    text = gpt2().decode_bytes(ids)
    assert (facts["tokens"], facts["bytes"]) == (count, len(text))
    assert facts["literal_eot"] == text.count(b"<|endoftext|>")


def test_progress_is_told_within_a_long_document_too(source, monkeypatch, capsys):
    monkeypatch.setattr(encode, "PROGRESS_SECONDS", 0.0)
    monkeypatch.setattr(readers, "BLOCK", 16)
    prepare("openwebtext-phase3-sample", source(train=["Quack, said the duck. " * 50]))
    lines = [line for line in capsys.readouterr().out.splitlines() if " MB/s, about " in line]
    assert len(lines) > 5 and len(set(lines)) > 5


def test_phase3_tail_stops_after_the_document_that_reaches_the_limit(source, monkeypatch):
    from oelm_lib.data import preparation as module

    texts = [f"Page {number} is short." for number in range(5000)]
    limited = load_spec("openwebtext-phase3-sample").model_copy(update={"token_limit": 999})
    monkeypatch.setattr(module, "load_spec", lambda name: limited)
    corpus = prepare("openwebtext-phase3-sample", source(train=texts))
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
        "wikitext103-phase3-sample", source(train=rows, validation=rows[:8], test=rows[:4])
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
    corpus = prepare("tinystories-sample", folder, tokenizer="bpe-270")
    tokenizer = load_tokenizer(corpus)
    assert (corpus.vocab_size, corpus.eot) == (270, 269)
    assert tokenizer.decode(corpus.tokens("train")) == "".join(
        f"{text}<|endoftext|>" for text in train
    )
    assert len(tokenizer.encode_documents(["zzzzzzzz"])[0]) == 8
    permuted = prepare("tinystories-phase3-sample", folder, tokenizer="bpe-270")
    assert permuted.manifest["splits"]["val"]["documents"] == 1
    with pytest.raises(UserError, match="openwebtext-phase3-sample: is cut by GPT-2 tokens"):
        prepare("openwebtext-phase3-sample", folder, tokenizer="bpe-270")


def test_split_that_would_be_empty(source, data_folder):
    with pytest.raises(
        UserError, match="the train split would be empty; the source needs more documents"
    ):
        prepare("tinystories-phase3-sample", source(train=["one duck"]))
    assert nothing_left(data_folder)


def test_a_text_that_ends_with_a_separator_has_no_row_after_it(tmp_path, monkeypatch):
    from oelm_lib.data import preparation as module

    complete = load_spec("tinystories-phase3").model_copy(update={"rows": {"train": len(STORIES)}})
    monkeypatch.setattr(module, "load_spec", lambda name: complete)
    file = tmp_path / "train.txt"
    file.write_text("".join(f"{story}\n<|endoftext|>\n" for story in STORIES))
    splits = prepare("tinystories-phase3", file).manifest["splits"]
    assert sum(split["documents"] for split in splits.values()) == len(STORIES)


def test_limit_makes_a_sample(source):
    folder = source(train=STORIES, validation=STORIES)
    with pytest.raises(
        UserError, match="limit = 5: makes a sample of tinystories; name it tinystories-sample"
    ):
        prepare("tinystories", folder, limit=5)
    with pytest.raises(UserError, match="limit = 0: must be at least 1"):
        prepare("tinystories-sample", folder, limit=0)
    corpus = prepare("tinystories-sample", folder, limit=5)
    assert corpus.tokens("train").tolist() == _ids(STORIES[:5])
    assert corpus.manifest["split_rules"]["limit"] == 5


def test_a_limit_holds_for_associative_recall_too():
    corpus = prepare("mqar-sample", tokenizer="ids-40", limit=5)
    assert {facts["documents"] for facts in corpus.manifest["splits"].values()} == {5}


@pytest.mark.parametrize(
    "name", ["tinystories", "openwebtext", "wikitext103", "openwebtext-phase3"]
)
def test_a_part_is_not_taken_for_the_corpus(source, data_folder, name):
    rows = [" = Fox = \n", "", " Text . \n"] * 9
    folder = source(train=rows, validation=rows, test=rows)
    with pytest.raises(
        UserError, match=rf"{name}: the train split of the source has .* {name}-sample"
    ):
        prepare(name, folder)
    assert nothing_left(data_folder)


@pytest.mark.parametrize("texts", [[], [""], ["", ""]])
@pytest.mark.parametrize(
    "name", ["tinystories-sample", "openwebtext-phase3-sample", "wikitext103-phase3-sample"]
)
def test_a_corpus_without_text_is_refused(source, data_folder, name, texts):
    with pytest.raises(
        UserError,
        match=rf"{name}: the train split of the source has no text \(\d rows\); give a source with",
    ):
        prepare(name, source(train=texts, validation=["a", "b"]))
    assert nothing_left(data_folder)
