import json

import numpy as np
import pytest

from oelm_lib.config import load_config
from oelm_lib.data import open_corpus, open_test, prepare
from oelm_lib.data.preparation import REHEARSAL
from oelm_lib.errors import UserError
from oelm_lib.files import with_checksum

from .conftest import STORIES


@pytest.fixture
def corpus(source):
    return prepare("tinystories-sample", source(train=STORIES, validation=STORIES))


def test_open_reads_what_prepare_wrote(corpus):
    again = open_corpus("tinystories-sample", "gpt2")
    assert again == corpus
    assert again.tokens("val").dtype == np.uint16
    assert len(again.tokens("train")) == again.manifest["splits"]["train"]["tokens"]


def test_training_cannot_open_test(corpus):
    with pytest.raises(ValueError, match="training reads train and val only"):
        corpus.tokens("test")
    (corpus.path / "test.bin").write_bytes(b"not even read when the corpus is opened")
    assert open_corpus("tinystories-sample", "gpt2") == corpus
    with pytest.raises(UserError, match=r"test.bin: has 39 bytes"):
        open_test(corpus)


@pytest.mark.parametrize(
    "edit",
    [
        lambda manifest: manifest | {"sample": False},
        lambda manifest: manifest | {"format": 2},
        lambda manifest: manifest | {"checksum": "0"},
        lambda manifest: {key: value for key, value in manifest.items() if key != "splits"},
        lambda manifest: [],
        lambda manifest: with_checksum(manifest | {"corpus": "tinystories"}),
    ],
)
def test_edited_manifest(corpus, edit):
    path = corpus.path / "manifest.json"
    path.write_text(json.dumps(edit(json.loads(path.read_text()))))
    with pytest.raises(
        UserError,
        match=r"manifest.json: is not what .* wrote .*; delete .* and run `oelm data prepare",
    ):
        open_corpus("tinystories-sample", "gpt2")


def test_manifest_that_is_not_json(corpus):
    (corpus.path / "manifest.json").write_text("{")
    with pytest.raises(UserError, match=r"manifest.json: is not what"):
        open_corpus("tinystories-sample", "gpt2")


@pytest.mark.parametrize("split", ["train", "val"])
def test_changed_tokens(corpus, split):
    file = corpus.path / f"{split}.bin"
    content = bytearray(file.read_bytes())
    content[10] ^= 1
    file.write_bytes(content)
    with pytest.raises(UserError, match=rf"{split}.bin: its SHA-256 is not the manifest's; delete"):
        open_corpus("tinystories-sample", "gpt2")
    file.write_bytes(content[:-2])
    with pytest.raises(UserError, match=rf"{split}.bin: has \d+ bytes, the manifest says"):
        open_corpus("tinystories-sample", "gpt2")


def test_without_the_hub_the_alternatives_are_named(monkeypatch):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    cfg = load_config("GPT-05")
    with pytest.raises(UserError, match="HF_HUB_OFFLINE is set") as caught:
        open_corpus(cfg.data.corpus, cfg.data.tokenizer, cfg)
    message = str(caught.value)
    assert f"`oelm data prepare {cfg.data.corpus} --tokenizer gpt2 --source FOLDER`" in message
    assert message.endswith(f'; or rehearse: `oelm run GPT-05 --set "{REHEARSAL}"`')
    assert "\n" not in message
    with pytest.raises(UserError, match=r"--source FOLDER`$"):
        open_corpus(cfg.data.corpus, cfg.data.tokenizer)


def test_the_hash_of_a_corpus_does_not_depend_on_the_time(corpus):
    manifest = corpus.path / "manifest.json"
    plain = json.loads(manifest.read_text()) | {"created": "another time"}
    manifest.write_text(json.dumps(with_checksum(plain)))
    assert open_corpus("tinystories-sample", "gpt2").manifest_sha256 == corpus.manifest_sha256


@pytest.mark.parametrize("splits", [None, [], {}, {"train": None}, {"train": {"tokens": "many"}}])
def test_a_manifest_with_a_right_checksum_and_wrong_splits_is_refused(corpus, splits):
    manifest = corpus.path / "manifest.json"
    plain = json.loads(manifest.read_text()) | {"splits": splits}
    manifest.write_text(json.dumps(with_checksum(plain)))
    with pytest.raises(UserError, match=r"is not what preparing|the manifest says"):
        open_corpus("tinystories-sample", "gpt2")


def test_a_copy_without_its_tokenizer_is_refused(source):
    corpus = prepare("tinystories-sample", source(train=STORIES, validation=STORIES), "bpe-300")
    (corpus.path / "tokenizer.json").unlink()
    with pytest.raises(UserError, match=r"tokenizer.json: is missing; copy it too, or delete"):
        open_corpus("tinystories-sample", "bpe-300")


def test_a_split_without_tokens_is_refused(corpus):
    manifest = corpus.path / "manifest.json"
    facts = json.loads(manifest.read_text())
    facts["splits"]["val"] |= {"tokens": 0, "documents": 0, "bytes": 0}
    manifest.write_text(json.dumps(with_checksum(facts)))
    (corpus.path / "val.bin").write_bytes(b"")
    with pytest.raises(UserError, match=r"val.bin: the val split has no tokens; delete"):
        open_corpus("tinystories-sample", "gpt2")
