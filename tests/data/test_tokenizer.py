import hashlib
import os
import shutil
import subprocess
import sys

import numpy as np
import pytest
import tiktoken
import tokenizers
from hypothesis import given
from hypothesis import strategies as st

from oelm_lib.data.gpt2_vocabulary import URL, read_gpt2_file
from oelm_lib.data.tokenizer import bpe_tokenizer, gpt2_tokenizer, load_tokenizer, train_bpe
from oelm_lib.errors import UserError

TEXTS = st.text(alphabet=st.characters(exclude_categories=["Cs"]), max_size=60)
WORDS = ["the fox sat on the mat", "the dog saw the fox", "a cat, a hat and 12 rats!\n"] * 20


def _cache(folder, files):
    for name, content in files.items():
        (folder / hashlib.sha1((URL + name).encode()).hexdigest()).write_bytes(content)


@pytest.fixture(scope="module")
def reference(tmp_path_factory):
    """tiktoken's own gpt2, from a cache folder with the two original files."""
    folder = tmp_path_factory.mktemp("tiktoken")
    _cache(folder, {name: read_gpt2_file(name) for name in ("vocab.bpe", "encoder.json")})
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TIKTOKEN_CACHE_DIR", str(folder))
        return tiktoken.get_encoding("gpt2")


@pytest.fixture(scope="module")
def gpt2():
    return gpt2_tokenizer()


@pytest.fixture(scope="module")
def bpe():
    return bpe_tokenizer(train_bpe("bpe-280", iter(WORDS)))


@given(text=TEXTS)
def test_gpt2_is_tiktokens(gpt2, reference, text):
    assert gpt2.encode_documents([text])[0].tolist() == reference.encode_ordinary(text)


@given(text=TEXTS)
def test_decode_undoes_encode(gpt2, bpe, text):
    for tokenizer in (gpt2, bpe):
        (ids,) = tokenizer.encode_documents([text])
        assert tokenizer.decode(ids) == text
        assert ids.dtype == np.uint16 and all(ids < tokenizer.vocab_size)


def test_literal_end_of_text_is_ordinary_and_the_id_is_the_last(gpt2, bpe):
    for tokenizer in (gpt2, bpe):
        (ids,) = tokenizer.encode_documents(["a<|endoftext|>b"])
        assert tokenizer.eot == tokenizer.vocab_size - 1
        assert tokenizer.eot not in ids
        assert (
            tokenizer.decode([*ids, tokenizer.eot, *ids])
            == "a<|endoftext|>b<|endoftext|>a<|endoftext|>b"
        )


def test_bpe_encodes_as_the_library_does(stories):
    content = (stories.path / "tokenizer.json").read_text()
    library, tokenizer = tokenizers.Tokenizer.from_str(content), bpe_tokenizer(content)

    @given(text=TEXTS)
    def check(text):
        assert tokenizer.encode_documents([text])[0].tolist() == library.encode(text).ids

    check()
    text = tokenizer.decode(stories.tokens("val"))
    assert tokenizer.encode_documents([text])[0].tolist() == library.encode(text).ids
    assert tokenizer.vocab_size == stories.vocab_size == library.get_vocab_size() + 1


def test_bpe_training_is_the_same_in_every_process():
    program = (
        f"from oelm_lib.data.tokenizer import train_bpe\nprint(train_bpe('bpe-280', iter({WORDS})))"
    )
    run = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert run.stdout.strip() == train_bpe("bpe-280", iter(WORDS))


def test_text_too_small_for_n_names_the_largest_n():
    with pytest.raises(
        UserError, match=r"bpe-5000: the train split yields \d+ tokens; use at most bpe-\d+"
    ):
        train_bpe("bpe-5000", iter(WORDS))


def test_wrong_vocabulary_file_is_named_and_kept(tmp_path, monkeypatch):
    monkeypatch.setenv("TIKTOKEN_CACHE_DIR", str(tmp_path))
    _cache(tmp_path, {"encoder.json": b"mine"})
    with pytest.raises(UserError, match=r"is not GPT-2's encoder.json .*TIKTOKEN_CACHE_DIR"):
        gpt2_tokenizer()
    assert [file.read_bytes() for file in tmp_path.iterdir()] == [b"mine"]


def test_changed_tokenizer_file_is_refused(stories, tmp_path):
    path = tmp_path / "copy"
    path.mkdir()
    (path / "tokenizer.json").write_text((stories.path / "tokenizer.json").read_text() + " ")
    changed = type(stories)(stories.name, stories.tokenizer, path, stories.manifest)
    with pytest.raises(
        UserError, match=r"tokenizer.json: is missing or not what the manifest says; delete"
    ):
        load_tokenizer(changed)
    assert load_tokenizer(stories).vocab_size == 1024


def test_a_cache_that_may_not_be_read_counts_as_empty(tmp_path, monkeypatch):
    """As /tmp/data-gym-cache of another user: the package's copy is used."""
    cache = tmp_path / "data-gym-cache"
    cache.mkdir()
    _cache(cache, {"vocab.bpe": b"of another user", "encoder.json": b"of another user"})
    monkeypatch.setenv("TIKTOKEN_CACHE_DIR", str(cache))
    setpriv = shutil.which("setpriv")
    if os.getuid() or not setpriv:
        pytest.skip("needs root and setpriv")
    os.chown(cache, 65534, 65534)
    cache.chmod(0o700)
    command = [setpriv, "--bounding-set=-dac_override,-dac_read_search", sys.executable, "-c"]
    command += ["from oelm_lib.data.tokenizer import gpt2_tokenizer as g; print(g().vocab_size)"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("50257\n", "")
