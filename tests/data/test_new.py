"""oelm data new: a corpus file proposed from a user's text, and the page that lists its keys."""

import gzip
import json
import os
import re
import shlex
import subprocess
import sys

import pyarrow
import pyarrow.parquet
import pytest
import yaml
from click.testing import CliRunner

from oelm_lib import cli
from oelm_lib.config import ROOT, load_config
from oelm_lib.data import CorpusSpec, load_spec, load_tokenizer, new, new_corpus, prepare, spec
from oelm_lib.errors import UserError

TEXTS = [f"Text number {n} is about {n % 7} ducks and a fox.\nIt ends." for n in range(150)]


@pytest.fixture(autouse=True)
def params(tmp_path, monkeypatch):
    """A params folder of this test, without corpora."""
    (tmp_path / "params" / "corpora").mkdir(parents=True)
    monkeypatch.setattr(spec, "PARAMS", tmp_path / "params")
    return tmp_path / "params"


@pytest.fixture
def make(tmp_path):
    """A function from file names and contents to the keys and the corpus made from them."""

    def make(files, tokenizer="gpt2"):
        for name, content in files.items():
            path = tmp_path / "from" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content if isinstance(content, bytes) else content.encode())
        corpus = new_corpus("mine", tmp_path / "from", tokenizer)
        plain = yaml.safe_load((tmp_path / "params" / "corpora" / "mine.yaml").read_text())
        return plain, {key: split["documents"] for key, split in corpus.manifest["splits"].items()}

    return make


def json_lines(texts, key="text"):
    return "".join(json.dumps({"id": f"{n}", key: text}) + "\n" for n, text in enumerate(texts))


def test_one_file_of_json_lines_is_divided_and_the_file_can_be_used_again(tmp_path, capsys):
    file = tmp_path / "poems.jsonl"
    file.write_text(json_lines(TEXTS, "body"))
    corpus = new_corpus("mine", file)
    lines = capsys.readouterr().out.splitlines()
    loaded = load_spec("mine")
    assert (loaded.text_field, loaded.title) == ("body", "mine")
    assert (loaded.validation, loaded.validation_fraction, loaded.test) == (
        "permutation",
        0.2,
        "halves",
    )
    splits = corpus.manifest["splits"]
    assert splits["train"]["documents"] == 120
    assert splits["val"]["documents"] + splits["test"]["documents"] == 30
    assert corpus.tokenizer == "bpe-300"  # the text yields no 512 tokens
    assert "mine: wrote params/corpora/mine.yaml (about 150 documents)" in lines
    assert prepare("mine", file, "gpt2").manifest["splits"].keys() == {
        "train",
        "val",
        "test",
    }
    assert "fox" in load_tokenizer(corpus).decode(corpus.tokens("val"))


@pytest.mark.parametrize(
    ("files", "keys", "documents"),
    [
        (
            {f"{name}.jsonl": json_lines(TEXTS) for name in ("train", "valid", "test")}
            | {"notes.md": "not read"},
            {"text_field": "text"},
            {"train": 150, "val": 150, "test": 150},
        ),
        (
            {"train.txt": "<|endoftext|>".join(TEXTS), "test.txt": "A\n<|endoftext|>\nB"},
            {
                "text_separator": "<|endoftext|>",
                "validation": "permutation",
                "validation_fraction": 0.2,
                "validation_seed": 42,
            },
            {"train": 120, "val": 30, "test": 2},
        ),
        (
            {f"poem {n}.txt": text for n, text in enumerate(TEXTS[:50])},
            {
                "validation": "permutation",
                "validation_fraction": 0.2,
                "validation_seed": 42,
                "test": "none",
            },
            {"train": 40, "val": 10},
        ),
        (
            {"novel.txt.gz": gzip.compress("\r\n\r\n".join(TEXTS).encode(), mtime=0)},
            {
                "text_separator": "\n\n",
                "validation": "permutation",
                "validation_fraction": 0.2,
                "validation_seed": 42,
                "test": "halves",
            },
            None,
        ),
        (
            {"a.txt": "one long line " * 500},
            {"validation": "tail", "validation_fraction": 0.1, "test": "none"},
            {"train": 1, "val": 1},
        ),
        (
            {
                f"{split}/wiki.txt": "".join(
                    f" = Title {n} = \n \n Text of {n} . \n \n" for n in range(30)
                )
                for split in ("train", "validation")
            },
            {"document": "article", "test": "halves"},
            None,
        ),
    ],
    ids=["splits", "own-test", "files", "paragraphs", "one-text", "articles"],
)
def test_rules_follow_the_text(make, files, keys, documents):
    plain, made = make(files)
    assert plain == {"title": "mine", "about": "Text from from.", "document": "row"} | keys
    assert documents in (None, made)
    assert min(made.values()) > 0


def test_files_that_are_not_read_are_named_once(make, capsys):
    make({"a.jsonl": json_lines(TEXTS), "notes.md": "not read"})
    lines = capsys.readouterr().out.splitlines()
    assert lines.count("mine: 1 other files are not read, e.g. notes.md") == 1


def test_a_parquet_column_is_chosen_by_its_text(tmp_path, make):
    table = pyarrow.table({"n": range(150), "id": ["x"] * 150, "story": TEXTS})
    pyarrow.parquet.write_table(table, tmp_path / "a.parquet")
    plain, _ = make({"data.parquet": (tmp_path / "a.parquet").read_bytes()})
    assert plain["text_field"] == "story"


def test_the_text_of_long_lines_is_found(tmp_path):
    books = ["a book of many words " * 60_000] * 3  # each line over a MiB
    (tmp_path / "a.jsonl").write_text(json_lines(books, "body"))
    assert new._text_field(tmp_path / "a.jsonl") == "body"


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("mine", None, "no such file or folder"),
        ("mine", b'{"n": 3}\n', "no column or key holds text"),
        ("mine", b'{"text": "a"}\n{"n": 3}\n', "line 2 is not a JSON object with text"),
        ("mine", b"", "no column or key holds text"),
        ("My Text", b"", "corpus name 'My Text': use small letters"),
        ("taken", b'{"text": "a"}\n', "corpora/taken.yaml: exists already; choose another name"),
    ],
)
def test_mistakes_are_one_line_and_leave_no_corpus_file(tmp_path, params, name, content, message):
    (params / "corpora" / "taken.yaml").write_text("title: taken")
    if content is not None:
        (tmp_path / "a.jsonl").write_bytes(content)
    with pytest.raises(UserError, match=message):
        new_corpus(name, tmp_path / "a.jsonl")
    assert [path.name for path in (params / "corpora").iterdir()] == ["taken.yaml"]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.txt.gz", b"not gzip"),
        ("a.jsonl.gz", b"not gzip"),
        ("a.txt.gz", gzip.compress(b"ducks" * 999, mtime=0)[:20]),
        ("a.jsonl.gz", gzip.compress(b"ducks" * 999, mtime=0)[:20]),
        ("a.parquet", b"not Parquet"),
    ],
)
def test_a_damaged_file_is_named_with_a_remedy(tmp_path, params, name, content):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=f"{name}: cannot be read as a whole .*; copy or download"):
        new_corpus("mine", tmp_path / name)
    assert not list((params / "corpora").iterdir())


def test_after_a_failure_the_same_command_works_with_another_text(tmp_path):
    file = tmp_path / os.fsdecode(b"caf\xe9.txt")  # Latin-1, as old archives name files
    for text in ("", "\n \n" * 1000):
        file.write_text(text)
        with pytest.raises(UserError, match="has no text"):
            new_corpus("mine", file, "gpt2")
    file.write_text("one long line " * 500)
    new_corpus("mine", file, "gpt2")
    assert load_spec("mine").about == r"Text from caf\xe9.txt."
    with pytest.raises(UserError, match="exists already"):
        new_corpus("mine", file, "gpt2")


KILLED = """
import builtins, os, sys
from pathlib import Path
from oelm_lib.data import new_corpus, spec
spec.PARAMS = Path(sys.argv[1])
builtins.print = lambda *text, **options: os.kill(os.getpid(), 9)
new_corpus("mine", sys.argv[2], "gpt2")
"""


def test_after_a_kill_the_same_command_goes_on_unless_the_file_was_edited(tmp_path, params):
    file, left = tmp_path / "a.jsonl", params / "corpora" / "mine.yaml"
    file.write_text(json_lines(TEXTS))
    assert subprocess.run([sys.executable, "-c", KILLED, params, file]).returncode == -9
    proposed = left.read_bytes()
    left.write_bytes(proposed + b"# My own line.\n")
    with pytest.raises(UserError, match=r"exists already; .* --tokenizer"):
        new_corpus("mine", file, "gpt2")
    assert left.read_bytes() == proposed + b"# My own line.\n"
    left.write_bytes(proposed)
    assert new_corpus("mine", file, "gpt2").path.is_dir()
    assert left.read_bytes() == proposed


def test_the_command_names_the_next_one(tmp_path):
    (tmp_path / "a.jsonl").write_text(json_lines(TEXTS))
    command = ["data", "new", "mine", "--from", str(tmp_path / "a.jsonl"), "--tokenizer", "bpe-280"]
    done = CliRunner().invoke(cli.main, command)
    assert done.exit_code == 0
    assert done.output.splitlines()[-1] == (
        "run: oelm run DEMO-02 --set data.corpus=mine --set data.tokenizer=bpe-280"
        " --set model.vocab_size=280"
    )


@pytest.mark.parametrize("name", ["1984", "null", "true"])
def test_a_name_that_yaml_takes_for_something_else_is_quoted_in_it(tmp_path, name):
    (tmp_path / "a.jsonl").write_text(json_lines(TEXTS))
    command = ["data", "new", name, "--from", str(tmp_path / "a.jsonl"), "--tokenizer", "bpe-280"]
    line = CliRunner().invoke(cli.main, command).output.splitlines()[-1]
    start, *options = shlex.split(line.removeprefix("run: oelm run "))
    assert start == "DEMO-02" and options[::2] == ["--set"] * 3
    assert load_config("DEMO-02", " ".join(options[1::2])).data.corpus == name


def test_the_guide_lists_every_key_with_a_valid_example():
    text = (ROOT / spec.GUIDE).read_text()
    listed = re.findall(r"^\| `(\w+)` \|", text, re.MULTILINE)
    assert listed == [key for key in CorpusSpec.model_fields if key != "name"]
    examples = [
        yaml.safe_load(block) for block in re.findall(r"```yaml\n(.*?)```", text, re.DOTALL)
    ]
    for example in examples:
        CorpusSpec.model_validate(example | {"name": "mine-sample"})
    assert len(examples) >= 3
    used = {key for example in examples for key in example}
    assert used >= set(listed) - {"generator", "recall", "revision", "hub_config"}
