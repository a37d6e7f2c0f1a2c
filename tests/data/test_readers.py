import gzip
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from oelm_lib.data import readers
from oelm_lib.data.bpe import train_bpe
from oelm_lib.data.documents import cut_documents, join_rows
from oelm_lib.data.readers import read_rows
from oelm_lib.data.spec import CorpusSpec
from oelm_lib.data.tokenizer import bpe_tokenizer, gpt2_tokenizer
from oelm_lib.errors import UserError

ROWS = CorpusSpec(name="x-sample", title="", about="", document="row")
STORIES = ROWS.model_copy(update={"text_separator": "<|endoftext|>"})


@pytest.fixture
def small_pieces(monkeypatch):
    monkeypatch.setattr(readers, "PIECE", 16)


def _documents(path, spec, strip=False):
    documents = [""]
    for text, ends in cut_documents(
        ((text, ends) for _, text, ends in read_rows(path, spec)), strip
    ):
        documents[-1] += text
        documents += [""] if ends else []
    assert documents.pop() == ""
    return documents


def test_pieces_encode_to_the_ids_of_the_whole():
    gpt2, bpe = (
        gpt2_tokenizer(),
        bpe_tokenizer(train_bpe("bpe-270", iter(["some words, 12 words.\n\nmore  words\t\n"] * 9))),
    )
    alphabet = st.sampled_from("abc12.,'\t\n\r  \x0b\x1c\x1f\x85\u00a0\u2003\u3000é字<|endoftext|>")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(readers, "PIECE", 5)

        @given(blocks=st.lists(st.text(alphabet, max_size=30), max_size=6))
        def check(blocks):
            rows = [*((block, False) for block in blocks), ("", True)]
            pieces = [text for text, _ in cut_documents(iter(rows), strip=False)]
            assert "".join(pieces) == "".join(blocks)
            for tokenizer in (gpt2, bpe):
                whole = tokenizer.encode_documents(["".join(blocks)])[0].tolist()
                assert [rank for ids in tokenizer.encode_documents(pieces) for rank in ids] == whole

        check()


def test_long_documents_are_cut(small_pieces):
    pieces = list(cut_documents(iter([("word " * 40, True), ("short", True)]), strip=False))
    assert len(pieces) > 5 and [ends for _, ends in pieces].count(True) == 2


@pytest.mark.parametrize("name", ["a.txt", "a.txt.gz", "a.jsonl", "a.jsonl.gz"])
def test_documents_of_line_files(tmp_path, small_pieces, name):
    texts = [
        "One fox.\n\nTwo ducks, three geese and a very long goodbye.",
        "Äpfel und 字",
        "<|end",
        " spaces ",
    ]
    if "jsonl" in name:
        content = "".join(json.dumps({"text": text}) + "\n" for text in texts)
    else:
        content = "\n<|endoftext|>\n".join(texts) + "\n<|endoftext|>\n"
        texts = [text.strip() for text in texts]
    path = tmp_path / name
    path.write_bytes(gzip.compress(content.encode()) if name.endswith(".gz") else content.encode())
    assert _documents(path, STORIES, strip=".txt" in name) == texts


def test_text_without_separator_is_one_untouched_document(tmp_path, small_pieces):
    path = tmp_path / "a.txt"
    text = "  Äpfel, 字 and pears\r\n" * 30
    path.write_bytes(text.encode())
    assert _documents(path, ROWS) == [text]


def test_articles_begin_at_titles_between_blank_rows():
    lines = [
        "",
        " = Fox = \n",
        "",
        " Text . \n",
        " = = Life = = \n",
        " Goals = \n",
        " = Not a title = \n",
        " x \n",
        "",
    ]
    lines += [" = Duck = Bird = \n", "", " More . \n"]
    articles = [""]
    for text, ends in join_rows(((line, True) for line in lines), articles=True):
        articles[-1] += text
        articles += [""] if ends else []
    assert articles == ["".join(lines[:9]), "".join(lines[9:]), ""]
    assert "".join(
        text for text, _ in join_rows(((line, True) for line in lines), articles=False)
    ) == "".join(lines)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.txt", b"ducks \xff", r"a.txt: byte 6 is not valid UTF-8"),
        ("a.txt", "é".encode()[:1], r"a.txt: byte 0 is not valid UTF-8"),
        ("a.txt", b"x" * 31 + "é".encode() + b"\xc3\x28", r"a.txt: byte 33 is not valid UTF-8"),
        (
            "a.txt.gz",
            gzip.compress(b"ducks " * 9 + b"\xfe", mtime=0),
            r"a.txt.gz: byte 54 is not valid UTF-8",
        ),
        ("a.jsonl", b'{"text": "a"}\n{"text": "\xff"}\n', r"a.jsonl: byte 24 is not valid UTF-8"),
        (
            "a.jsonl",
            b'{"text": "\\ud800"}\n',
            r"a.jsonl: line 1: its text holds a lone surrogate \(\\ud800, half of a character\)",
        ),
        ("a.jsonl", b'{"story": "a"}\n', r"a.jsonl: line 1 is not a JSON object"),
        ("a.jsonl", b'["text"]\n', r"a.jsonl: line 1 is not a JSON object"),
        ("a.jsonl", b'{"text": 3}\n', r"a.jsonl: line 1 is not a JSON object"),
        (
            "a.txt.gz",
            gzip.compress(b"ducks" * 999, mtime=0)[:-9],
            r"a.txt.gz: cannot be read as a whole",
        ),
        ("a.jsonl.gz", b"not gzip", r"a.jsonl.gz: cannot be read as a whole"),
        ("a.parquet", b"PAR1 and then nothing", r"a.parquet: cannot be read as a whole"),
    ],
)
def test_bad_files_say_where(tmp_path, small_pieces, name, content, message):
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(UserError, match=message):
        list(read_rows(path, ROWS))


def test_truncated_parquet(source):
    path = source(train=["ducks"] * 99) / "train.parquet"
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(
        UserError, match=r"train.parquet: cannot be read as a whole .*copy or download it again"
    ):
        list(read_rows(path, ROWS))


def test_parquet_columns_and_values(source):
    path = source(field="story", train=["ducks"]) / "train.parquet"
    with pytest.raises(UserError, match=r"no column 'text' \(found: story\)"):
        list(read_rows(path, ROWS))
    path = source(train=["ducks", None]) / "train.parquet"
    with pytest.raises(UserError, match="row 1 of 'text' is null; remove it"):
        list(read_rows(path, ROWS))


def test_parquet_text_that_is_not_utf8(tmp_path):
    import pyarrow
    import pyarrow.parquet

    array = pyarrow.array([b"fine", b"duck\xff"], pyarrow.binary()).view(pyarrow.string())
    pyarrow.parquet.write_table(pyarrow.table({"text": array}), tmp_path / "a.parquet")
    with pytest.raises(UserError, match=r"a.parquet: row 1, byte 4 of its text is not valid UTF-8"):
        list(read_rows(tmp_path / "a.parquet", ROWS))
