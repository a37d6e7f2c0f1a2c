"""Associative recall: examples with exact answers; only tokens after a query are scored."""

import json

import numpy as np
import pytest
import torch

from oelm_lib import config, runs, training
from oelm_lib.data import (
    Batches,
    EvalWindows,
    load_spec,
    load_tokenizer,
    open_corpus,
    open_test,
    prepare,
    read_corpus,
)
from oelm_lib.data.batches import IGNORED
from oelm_lib.data.mqar import recall_examples
from oelm_lib.errors import UserError

CPU = torch.device("cpu")
SMALL = "data.tokenizer=ids-40 model.vocab_size=40 model.d_model=16 model.num_heads=2"
SMALL += " train.max_steps=4 train.eval_interval=2"


@pytest.fixture
def corpus():
    return prepare("mqar", tokenizer="ids-40")


def test_each_key_is_asked_for_once_and_its_value_follows():
    recall = load_spec("mqar").recall
    examples = recall_examples(recall, "validation", 40)
    assert examples.shape == (recall.examples.validation, recall.length)
    assert np.array_equal(examples, recall_examples(recall, "validation", 40))
    context = 2 * recall.pairs
    for row in examples:
        keys, values = row[:context:2], row[1:context:2]
        assert len(set(keys)) == len(set(values)) == recall.pairs
        assert 0 < keys.min() <= keys.max() < 20 <= values.min()
        asked = context + np.flatnonzero((row[context:] > 0) & (row[context:] < 20))
        assert sorted(row[asked]) == sorted(keys)
        answers = dict(zip(keys, values, strict=True))
        assert [answers[key] for key in row[asked]] == list(row[asked + 1])
        assert (row[context:] == 0).sum() == recall.length - 2 * context


def test_queries_stand_near_the_pairs_by_the_power_law():
    """With a = 0.01 nearly 1 / x: the first places are asked far more often than the last."""
    recall = load_spec("mqar").recall
    places = (recall_examples(recall, "train", 40)[:, 2 * recall.pairs :: 2] > 0).mean(0)
    assert (np.diff(places) < 0.02).all()
    assert places[0] > 0.9 > 0.3 > places[-1]


def test_batches_and_windows_score_only_what_follows_a_query(corpus):
    pairs, length = 8, 64
    for tokens, targets in (
        Batches(corpus.tokens("train"), length, 4, 1, CPU, corpus.recall)(0),
        EvalWindows(corpus.tokens("val"), length, CPU, corpus.recall).batch(np.array([0, 499])),
    ):
        asked = targets != IGNORED
        assert (asked.sum(1) == pairs).all()
        assert not asked[:, : 2 * pairs].any()
        assert (tokens[asked] < 20).all()
        assert (targets[asked] >= 20).all()


def test_it_is_made_once_and_read_like_any_corpus(corpus):
    assert open_corpus("mqar", "ids-40").manifest_sha256 == corpus.manifest_sha256
    assert (corpus.manifest["synthetic"], corpus.eot, corpus.vocab_size) == (True, None, 40)
    assert len(open_test(corpus)) == 500 * 64
    recall = read_corpus("mqar", "ids-40").recall
    assert (recall.end_of_keys, recall.pairs, recall.first_query) == (20, 8, 16)
    ids = load_tokenizer(corpus)
    assert ids.decode([3, 25]) == " 3 25"
    assert ids.encode_documents(["3 25"])[0].tolist() == [3, 25]


def test_an_experiment_trains_on_it_and_is_probed_for_accuracy(tmp_path):
    from oelm_lib.explore import open_arms, probes

    cfg = config.load_config("MQAR-02", SMALL)
    run = runs.open_run(cfg, 1, tmp_path / "outputs")
    training.train(run)
    summary = json.loads((run.path / "summary.json").read_text())
    with np.load(run.path / "documents.npz") as documents:
        assert documents["tokens"].tolist() == [8] * 500  # an example each
    assert abs(summary["final_val_loss"] - np.log(40)) < 1
    (arm,) = open_arms(str(run.path))
    assert 0 <= probes.recall_accuracy(arm) < 0.3
    assert "recall_accuracy" in probes.probe_values([arm])
    assert arm.continued("3 25", 2).pop().startswith(" ")
    with pytest.raises(UserError, match="has no words; give token ids"):
        arm.continued("the owl", 2)
    with pytest.raises(UserError, match=r"has the id 77; ids of mqar are 0 .. 39"):
        arm.continued("3 77", 2)


@pytest.mark.parametrize(
    ("name", "tokenizer", "words"),
    [
        ("mqar", "bpe-300", r"mqar is made with ids-<N>"),
        ("stories", "ids-300", r"stories is made with gpt2 or bpe-<N>"),
        ("mqar", "ids-12", "has no 8 keys and values; use a larger N"),
        ("mqar", "ids-2", r"N must be 8 .. 65536"),
    ],
)
def test_wrong_tokenizers_are_one_line(name, tokenizer, words):
    with pytest.raises(UserError, match=words):
        prepare(name, tokenizer=tokenizer)


def test_a_context_of_another_length_is_one_line(tmp_path):
    with pytest.raises(UserError, match=r"model.max_seq_len = 32: examples of mqar have 64 tokens"):
        runs.open_run(config.load_config("MQAR-01", f"{SMALL} model.max_seq_len=32"), 1, tmp_path)
