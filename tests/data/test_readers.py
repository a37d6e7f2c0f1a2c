import gzip
import json
import random

import pyarrow
import pyarrow.parquet
import pytest
from hypothesis import given
from hypothesis import strategies as st

from oelm_lib.data import documents, readers
from oelm_lib.data.documents import cut_documents, join_rows
from oelm_lib.data.readers import read_rows
from oelm_lib.data.spec import CorpusSpec
from oelm_lib.data.tokenizer import bpe_tokenizer, gpt2_tokenizer, train_bpe
from oelm_lib.errors import UserError

ROWS = CorpusSpec(name="x-sample", title="", about="", document="row")
STORIES = ROWS.model_copy(update={"text_separator": "<|endoftext|>"})


@pytest.fixture
def small_pieces(monkeypatch):
    monkeypatch.setattr(readers, "BLOCK", 16)


def _documents(path, spec, strip=False):
    texts = [""]
    for text, ends in cut_documents(
        ((text, ends) for _, text, ends in read_rows(path, spec)), strip
    ):
        texts[-1] += text
        texts += [""] if ends else []
    assert texts.pop() == ""
    return texts


def test_pieces_encode_to_the_ids_of_the_whole():
    gpt2, bpe = (
        gpt2_tokenizer(),
        bpe_tokenizer(train_bpe("bpe-270", iter(["some words, 12 words.\n\nmore  words\t\n"] * 9))),
    )
    white_space = " \t\n\r\x0b\x1c\x1f\x85\u00a0\u2003\u3000"
    alphabet = st.sampled_from("abc12.,'é字<|endoftext|> " + white_space)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(readers, "BLOCK", 5)

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
        ("a.jsonl", b'\n \n{"text": "a"\n', r"a.jsonl: line 3 is not a JSON object"),
        ("a.jsonl", b'{"text": ' + b"[" * 99_999, r"a.jsonl: line 1 is not a JSON object"),
        (
            "a.jsonl",
            b'{"text": "a", "id": 1, "text": "b"}\n',
            r"a.jsonl: line 1: gives 'text' twice",
        ),
        ("a.jsonl", b'{"text": null}\n', r"a.jsonl: line 1 is not a JSON object"),
        ("a.jsonl", '{"text": "a"}'.encode("utf-16"), r"a.jsonl: byte 0 is not valid UTF-8"),
        ("a.txt", "ducks".encode("utf-16-le"), r"a.txt: is full of zero bytes \(UTF-16\?\), which"),
        ("a.jsonl", b'{"story": "a"}\n', r"a.jsonl: line 1 is not a JSON object"),
        ("a.jsonl", b'["text"]\n', r"a.jsonl: line 1 is not a JSON object"),
        ("a.jsonl", b'{"text": 3}\n', r"a.jsonl: line 1 is not a JSON object"),
        (
            "a.txt.gz",
            gzip.compress(b"ducks" * 999, mtime=0)[:-9],
            r"a.txt.gz: cannot be read as a whole",
        ),
        ("a.jsonl.gz", b"not gzip", r"a.jsonl.gz: cannot be read as a whole"),
        (
            "a.parquet",
            b"PAR1 and then nothing",
            r"a.parquet: cannot be read as a whole .*copy or download it again",
        ),
    ],
)
def test_bad_files_say_where(tmp_path, small_pieces, name, content, message):
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(UserError, match=message):
        list(read_rows(path, ROWS))


@pytest.mark.parametrize("name", ["a.parquet", "a.jsonl", "a.jsonl.gz", "a.txt", "a.txt.gz"])
def test_a_damaged_file_is_read_or_refused(source, tmp_path, name):
    """Whatever bytes change, are lost or added: a UserError, or text."""
    texts = [f"Story {number} of ducks é." for number in range(50)]
    content = "".join(json.dumps({"text": text}) + "\n" for text in texts).encode()
    if name == "a.parquet":
        content = (source(train=texts) / "train.parquet").read_bytes()
    content = gzip.compress(content) if name.endswith(".gz") else content
    rng = random.Random(name)
    refused = 0
    for _ in range(150):
        place, length = rng.randrange(len(content)), rng.randint(0, 5)
        damaged = content[:place] + rng.randbytes(length)
        damaged += content[place + rng.choice([0, 5, len(content)]) :]
        (tmp_path / name).write_bytes(damaged)
        try:
            assert all(isinstance(text, str) for _, text, _ in read_rows(tmp_path / name, STORIES))
        except UserError as error:
            refused += 1
            assert len(str(error)) < 600 and "\n" not in str(error)
    assert refused > 20


@pytest.mark.parametrize("name", ["a.txt", "a.jsonl"])
def test_a_byte_order_mark_is_no_text(tmp_path, name):
    text = json.dumps({"text": "duck"}) if name == "a.jsonl" else "duck"
    (tmp_path / name).write_bytes(text.encode("utf-8-sig"))
    assert _documents(tmp_path / name, ROWS) == ["duck"]
    wikitext = ROWS.model_copy(update={"document": "article"})
    assert next(read_rows(tmp_path / name, wikitext))[1] == "duck"


def test_blank_json_lines_are_left_out_and_long_numbers_are_ignored(tmp_path):
    number = "9" * 5000
    (tmp_path / "a.jsonl").write_text(f'\n{{"text": "a", "n": {number}}}\n\n{{"text": "b"}}\n \n')
    assert _documents(tmp_path / "a.jsonl", ROWS) == ["a", "b"]


@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_windows_line_ends_divide_articles_and_documents(tmp_path, small_pieces, end):
    lines = ["", " = Fox = ", "", " Text . ", "", " = Duck = ", "", " Quack . ", ""]
    rows = iter([(line + end, True) for line in lines])
    assert [ends for _, ends in join_rows(rows, articles=True)].count(True) == 2
    path = tmp_path / "a.txt"
    path.write_bytes(end.join(["one text", "", "two texts, a long one", "", "three"]).encode())
    spec = ROWS.model_copy(update={"text_separator": "\n\n"})
    assert _documents(path, spec, strip=True) == ["one text", "two texts, a long one", "three"]


def test_a_line_longer_than_the_limit_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(readers, "LINE_BYTES", 99)
    (tmp_path / "a.jsonl").write_text('{"text": "short"}\n' + json.dumps({"text": "x" * 99}))
    with pytest.raises(UserError, match=r"a.jsonl: line 2 is longer than 99 bytes; divide it"):
        list(read_rows(tmp_path / "a.jsonl", ROWS))


def test_text_that_cannot_be_cut_is_bounded(small_pieces, monkeypatch):
    monkeypatch.setattr(documents, "MOST_UNCUT", 64)
    rows = iter([("a " + "x" * 40, False), ("x" * 40, False), ("", True)])
    with pytest.raises(UserError, match=r"has 81 characters without white space in a row \(it beg"):
        list(cut_documents(rows, strip=False))
    parts = iter([("x" * 40, False), (" y" * 40, False), ("", True)])
    pieces = [text for text, _ in cut_documents(parts, strip=False)]
    assert pieces == ["x" * 40 + " y" * 39, " y"]


def test_a_run_of_white_space_too_long_for_the_tokenizer_is_one_line():
    with pytest.raises(UserError, match=r"begins 'A ' .* it has 1,200,000 white-space characters"):
        gpt2_tokenizer().encode_documents(["A" + " " * 1_200_000 + "b"])


def test_parquet_columns_and_values(source):
    path = source(field="story", train=["ducks"]) / "train.parquet"
    with pytest.raises(UserError, match=r"no column 'text' \(found: story\)"):
        list(read_rows(path, ROWS))
    path = source(train=["ducks", None]) / "train.parquet"
    with pytest.raises(UserError, match="row 1 of 'text' is null; remove it"):
        list(read_rows(path, ROWS))


@pytest.mark.parametrize("value", [["word " * 100_000], b"ducks", 3.0, {"a": "b"}])
def test_a_column_that_is_not_text_is_named_by_its_type_in_a_short_line(tmp_path, value):
    pyarrow.parquet.write_table(pyarrow.table({"text": [value]}), tmp_path / "a.parquet")
    with pytest.raises(UserError, match=r"column 'text' holds .*, not text \(string\)") as caught:
        list(read_rows(tmp_path / "a.parquet", ROWS))
    assert len(str(caught.value)) < 400


def test_a_column_twice_is_refused(tmp_path):
    table = pyarrow.table([["a"], ["b"]], names=["text", "text"])
    pyarrow.parquet.write_table(table, tmp_path / "a.parquet")
    with pytest.raises(UserError, match="more than one column 'text'"):
        list(read_rows(tmp_path / "a.parquet", ROWS))


@pytest.mark.parametrize("kind", [pyarrow.large_string(), pyarrow.string_view()])
def test_every_type_of_text_column_is_read(tmp_path, kind):
    table = pyarrow.table({"text": pyarrow.array(["a", "b", "a"], kind)})
    pyarrow.parquet.write_table(table, tmp_path / "a.parquet")
    assert _documents(tmp_path / "a.parquet", ROWS) == ["a", "b", "a"]


def test_repeated_text_takes_memory_once(tmp_path):
    """256 rows of 4 MB, stored once: decoded together they would take a gigabyte."""
    places = pyarrow.array([0] * 256, pyarrow.int32())
    text = pyarrow.DictionaryArray.from_arrays(places, ["word " * 800_000])
    options = {"compression": "zstd", "store_schema": False}
    pyarrow.parquet.write_table(pyarrow.table({"text": text}), tmp_path / "a.parquet", **options)
    assert (tmp_path / "a.parquet").stat().st_size < 50_000
    before = pyarrow.total_allocated_bytes()
    rows = read_rows(tmp_path / "a.parquet", ROWS)
    assert len(next(rows)[1]) == 4_000_000
    assert pyarrow.total_allocated_bytes() - before < 100_000_000


def test_rows_are_decoded_by_their_size_and_an_exploding_row_group_is_refused(
    tmp_path, monkeypatch
):
    texts = [f"{number} " + "word " * 2000 for number in range(300)]
    plain = {"use_dictionary": False, "compression": "zstd"}
    pyarrow.parquet.write_table(pyarrow.table({"text": texts}), tmp_path / "a.parquet", **plain)
    metadata = pyarrow.parquet.read_metadata(tmp_path / "a.parquet")
    monkeypatch.setattr(readers, "BATCH_BYTES", 30_000)
    assert readers._parquet_batch_rows(tmp_path / "a.parquet", metadata, "text") == 2
    assert _documents(tmp_path / "a.parquet", ROWS) == texts
    monkeypatch.setattr(readers, "PAGE_BYTES", 1_000_000)
    with pytest.raises(
        UserError, match=r"row group of [\d,]+ bytes unpacks to 3,0[\d,]+; above 200"
    ):
        list(read_rows(tmp_path / "a.parquet", ROWS))


def test_parquet_text_that_is_not_utf8(tmp_path):
    array = pyarrow.array([b"fine", b"duck\xff"], pyarrow.binary()).view(pyarrow.string())
    pyarrow.parquet.write_table(pyarrow.table({"text": array}), tmp_path / "a.parquet")
    with pytest.raises(UserError, match=r"a.parquet: row 1, byte 4 of its text is not valid UTF-8"):
        list(read_rows(tmp_path / "a.parquet", ROWS))
