import math

import pandas as pd
import pytest

from oelm_lib import stats
from oelm_lib.markup import Html, fold
from oelm_lib.view.tables import table
from oelm_lib.view.tones import verdict_html


def test_a_constant_column_stands_in_the_caption_and_an_empty_one_is_left_out():
    frame = pd.DataFrame(
        {
            "arm": ["a", "b"],
            "gap": [0.1, 0.1],
            "n": [3, 3],
            "empty": [None, math.nan],
            "reason": 2 * ["failed: <" + "word " * 9],
            "verdict": 2 * [stats.PASS],
        }
    )
    caption, _, body = table(frame).partition("</caption>")
    assert "gap: +10.00 %" in caption and "failed: &lt;word word" in caption
    assert f"verdict: {verdict_html(stats.PASS)}" in caption
    assert ">n<" in body and ">gap<" not in body and ">empty<" not in body


@pytest.mark.parametrize(
    ("column", "value", "text"),
    [
        ("gap", -0.0123, "−1.23 %"),
        ("gap", math.inf, "over +1,000 %"),
        ("unadjusted_low", 0.0671, "+6.71 %"),
        ("wall_seconds", 16287.0, "4h 31m 27s"),
        ("started", "2026-02-09T16:08:00Z", ">2026-02-09 16:08<"),
        ("tokens", 1234567.0, "1,234,567"),
        ("final_val_perplexity", 5.5361, ">5.54<"),
        ("final_val_loss", 1.71128, ">1.7113<"),
        ("final_val_loss", math.nan, ">–<"),
        ("reason", "<script>", "&lt;script&gt;"),
    ],
)
def test_columns_have_their_format(column, value, text):
    assert text in table(pd.DataFrame({"key": ["x", "y"], column: [value, 7.5]}))


def test_folded_tables_and_html_open_with_a_click():
    html = fold("More <b>", table(pd.DataFrame({"arm": ["a"]})), Html("<p>Why</p>"))
    assert html.startswith("<details><summary>More &lt;b&gt;</summary>") and "<table" in html
    assert html.endswith("<p>Why</p></details>")


def test_the_name_of_an_arm_heads_its_column_as_it_is():
    names = {"val_loss": [1.0, 2.0], "OELM-Freeze, freeze_k=False": [1.0, 2.0]}
    html = table(pd.DataFrame(names))
    assert ">val loss</th>" in html and ">OELM-Freeze, freeze_k=False</th>" in html
