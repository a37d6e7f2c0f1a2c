"""Corpus files: contradictions between keys are one line that names the file and the key."""

import pytest
import yaml

from oelm_lib import config
from oelm_lib.data import corpus_names, load_spec, load_tokenizer, prepare, spec
from oelm_lib.errors import UserError

PLAIN = {"title": "Mine", "about": "My text.", "document": "row"}
PERMUTED = {"validation": "permutation", "validation_fraction": 0.1, "validation_seed": 1}
GRAMMAR = yaml.safe_load((config.PARAMS / "corpora" / "stories.yaml").read_text())["generator"]
RECALL = yaml.safe_load((config.PARAMS / "corpora" / "mqar.yaml").read_text())["recall"]


@pytest.fixture
def write_spec(tmp_path, monkeypatch):
    """A function that writes params/corpora/mine.yaml in a folder of its own and loads it."""
    monkeypatch.setattr(spec, "PARAMS", tmp_path)
    (tmp_path / "corpora").mkdir()

    def write(changes, name="mine"):
        plain = {key: value for key, value in (PLAIN | changes).items() if value != "REMOVED"}
        (tmp_path / "corpora" / f"{name}.yaml").write_text(yaml.safe_dump(plain))
        return load_spec(name)

    return write


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"validation": "permutation", "validation_fraction": 0.1}, "needs validation_seed"),
        ({"validation": "permutation", "validation_seed": 1}, "needs validation_fraction"),
        ({"validation": "tail"}, "validation: tail needs validation_fraction"),
        (
            {"validation": "tail", "validation_fraction": 0.1, "test": "halves"},
            "test: halves needs whole ones; use none",
        ),
        (
            {"validation": "tail", "validation_fraction": 0.1, "validation_seed": 3},
            "validation_seed needs validation: permutation",
        ),
        ({"validation_fraction": 0.1}, "validation_fraction needs validation: permutation or tail"),
        ({"document": "split"} | PERMUTED, "permutation needs more than one document"),
        ({"document": "split", "test": "halves"}, "halves needs more than one document"),
        ({"document": "split", "token_limit": 9}, "token_limit keeps whole documents"),
        ({"rows": {"train": 9}, "token_limit": 9}, "token_limit stops before; remove one"),
        ({"document": "article", "text_separator": "\n"}, "text_separator divides rows"),
        ({"rows": {"validation": 3}} | PERMUTED, "rows.validation: that split is not read"),
        ({"limit": 9}, r"limit makes a sample; name the file mine-sample.yaml"),
        (PERMUTED | {"validation_seed": -1}, "validation_seed = -1: should be at least 0"),
        (PERMUTED | {"validation_seed": True}, "validation_seed = True: should be a whole number"),
        (PERMUTED | {"validation_fraction": 1}, "validation_fraction = 1: should be below 1"),
        ({"text_separator": ""}, "text_separator = '': "),
        ({"hub_config": "../.."}, "hub_config = '../..': "),
        ({"end_of_text": "no"}, "end_of_text = 'no': "),
        ({"name": "other"}, "name is the file's name; remove the key"),
        ({"validation_fracton": 0.1}, r"unknown key validation_fracton \(did you mean validation_"),
        ({"document": "REMOVED"}, r"document is missing; see docs/own-corpus.md"),
        ({"generator": GRAMMAR, "recall": RECALL}, "generator and recall are both given"),
        ({"generator": GRAMMAR, "hub": "a/b"}, "hub: has no effect on a generated corpus"),
        (
            {"generator": GRAMMAR | {"stories": {"train": 9}}},
            "generator.stories.validation is missing",
        ),
        (
            {"generator": GRAMMAR | {"openings": ["A {jobb} came."]}},
            "sentence 'A {jobb} came.' has an unknown slot: 'jobb'",
        ),
        (
            {"generator": GRAMMAR | {"words": GRAMMAR["words"] | {"job": "cook"}}},
            "generator.words.job = .*: should be a list of length 2 or more",
        ),
        (
            {"generator": GRAMMAR | {"fillers": {"count": [3, 1], "sentences": ["A.", "B."]}}},
            r"count = \[3, 1\] should rise",
        ),
        (
            {"generator": GRAMMAR | {"words": GRAMMAR["words"] | {"girl": ["", ""]}}},
            r"generator.words.girl\S* = '': ",
        ),
        (
            {"generator": GRAMMAR | {"openings": ["A {girl[x]} came."]}},
            r"sentence 'A {girl\[x\]} came.' has an unknown slot",
        ),
        ({"generator": GRAMMAR | {"openings": []}}, "generator.openings = "),
        ({"generator": GRAMMAR | {"openings": [""]}}, r"generator.openings\S* = '': "),
        ({"recall": RECALL | {"power": 1000}}, "recall.power = 1000: should be at most 10"),
        ({"generator": GRAMMAR | {"words": {"boy": 3}}}, "generator.words.boy = 3: "),
        ({"recall": RECALL | {"examples": {"train": 3}}}, "recall.examples.validation is missing"),
    ],
)
def test_contradictions_are_one_line(write_spec, changes, message):
    with pytest.raises(UserError, match=rf"^params/corpora/mine.yaml: .*{message}") as caught:
        write_spec(changes)
    assert "GPT-01" not in str(caught.value)


def test_every_contradiction_of_a_file_is_listed(write_spec):
    with pytest.raises(UserError, match=r"validation_seed.*; text_separator divides") as caught:
        write_spec(
            {
                "document": "article",
                "text_separator": "x",
                "validation": "permutation",
                "validation_fraction": 0.1,
            }
        )
    assert "\n" not in str(caught.value)


def test_a_file_that_is_no_mapping_names_itself(write_spec, tmp_path):
    write_spec({})
    (tmp_path / "corpora" / "mine.yaml").write_text("- a\n")
    with pytest.raises(UserError, match=r"mine.yaml: holds list, .*; see docs/own-corpus.md"):
        load_spec("mine")


def test_files_with_other_names_are_ignored(write_spec, tmp_path):
    write_spec({})
    (tmp_path / "corpora" / "mine-Copy1.yaml").write_text("not: a corpus")
    (tmp_path / "corpora" / "my corpus.yaml").write_text("not: a corpus")
    assert corpus_names() == ["mine"]


def test_permutation_beside_the_sources_own_test_split(write_spec, source):
    """Validation is drawn from train; the source's test split is the test split."""
    write_spec(PERMUTED)
    folder = source(train=[f"train {n}" for n in range(20)], test=["one test", "two tests"])
    splits = prepare("mine", folder).manifest["splits"]
    assert {key: split["documents"] for key, split in splits.items()} == {
        "train": 18,
        "val": 2,
        "test": 2,
    }


def test_a_permutation_is_the_same_each_time_and_its_bpe_sees_no_validation_text(
    write_spec, source, monkeypatch, tmp_path
):
    write_spec(PERMUTED | {"test": "none", "validation_fraction": 0.5})
    folder = source(train=[chr(97 + n) * 9 for n in range(20)])
    prepared = []
    for number in range(2):
        monkeypatch.setenv("OELM_DATA", str(tmp_path / f"data{number}"))
        prepared.append(prepare("mine", folder, "bpe-266"))
    first, second = prepared
    assert first.manifest_sha256 == second.manifest_sha256
    tokenizer = load_tokenizer(first)
    train, val = (set(tokenizer.decode(first.tokens(split))[::22]) for split in ("train", "val"))
    merged = {tokenizer.decode([rank])[0] for rank in range(256, 265)}
    assert len(train) == len(val) == 10 and merged and merged <= train - val


def test_a_token_limit_is_counted_in_gpt2_tokens_alone(write_spec, source):
    write_spec(PERMUTED | {"token_limit": 50, "test": "none"}, "mine-sample")
    with pytest.raises(UserError, match="mine-sample: is cut by GPT-2 tokens and made with gpt2"):
        prepare("mine-sample", source(train=["a duck"] * 99), "bpe-300")


def test_a_grammar_with_too_few_stories_ends(monkeypatch):
    from oelm_lib.data import stories

    monkeypatch.setattr(stories, "MOST_REPEATS", 50)
    small = {
        "stories": {"train": 9, "validation": 1, "test": 1},
        "words": {"girl": "Ada Eve", "boy": "Bob Cid"},
        "openings": ["{name}."],
        "callbacks": {"count": [0, 0], "sentences": []},
        "fillers": {"count": [0, 0], "sentences": []},
    }
    grammar = stories.StoryGrammar.model_validate(small)
    with pytest.raises(UserError, match=r"yields only 4 different stories; lower .*stories.train"):
        stories.generate_stories(grammar)


@pytest.mark.parametrize("name", ["x" * 500_000, "tinystories\n", "TinyStories", ".", "../x", ""])
def test_an_unknown_name_is_one_short_line(name):
    with pytest.raises(UserError, match=r"^no corpus ") as caught:
        load_spec(name)
    assert len(str(caught.value)) < 700


@pytest.mark.parametrize("tokenizer", ["bpe-0512", "bpe-" + "9" * 5000, "bpe-²", "ids-008", 512])
def test_a_tokenizer_of_another_spelling_is_refused(tokenizer):
    with pytest.raises(UserError, match="tokenizer = ") as caught:
        prepare("stories", tokenizer=tokenizer)
    assert len(str(caught.value)) < 300
