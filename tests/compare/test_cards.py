import pandas as pd

from oelm_lib.compare import cards, tables
from oelm_lib.config import load_config
from oelm_lib.view import tables as view_tables
from tests import runs_factory


def test_cards_of_the_log_say_what_it_showed():
    text = cards.verdict_cards(tables.recorded())
    assert all(
        part in text for part in ("+9.75 %", "+16.45 %", "+14.92 %", "+15.52 %", "UNKNOWN INTERVAL")
    )
    assert "learning rate differs" in cards.warnings(tables.recorded())


def test_untrusted_words_are_escaped(tmp_path):
    bad = "<script>alert(1)</script>"
    for exp in ("DEMO-01", "DEMO-02"):
        changes = {"title": f"Stories, {bad}"} | (
            {"model.qk_scale": 2.0} if exp == "DEMO-02" else {}
        )
        runs_factory.make_run(tmp_path, exp, experiment=changes)
    runs = tables.load_runs("DEMO-*", tmp_path)
    for shown in (
        cards.verdict_cards(runs),
        cards.warnings(runs),
        view_tables.table(tables.matrix(runs))._repr_html_(),
    ):
        assert bad not in shown
    assert "&lt;script&gt;" in cards.verdict_cards(runs)


def test_config_diff_has_a_row_a_key_and_a_column_an_arm(demo):
    table = cards.config_diff(tables.load_runs("DEMO-*", demo)).set_index("key")
    assert list(table.index) == list(load_config("DEMO-02").changes)
    assert table.loc[
        "model.qk_scale", ["OELM-Freeze (DEMO-02)", "OELM-Random (DEMO-03)"]
    ].tolist() == ["1", "same"]


def test_table_lifts_what_is_the_same_and_drops_what_is_empty(demo):
    shown = view_tables.table(tables.results(tables.load_runs("DEMO-*", demo))).to_html()
    assert "corpus: stories" in shown.split("</caption>")[0] and ">final val perplexity<" in shown
    pair = pd.DataFrame(
        {"arm": ["a", "b"], "gap": [0.1, 0.1], "reason": 2 * ["failed: " + "word " * 9]}
    )
    above = view_tables.table(pair).to_html().split("</caption>")[0]
    assert "gap: +10.00 %" in above and "word word word" in above  # as in the table, and whole
    assert ">corpus<" not in shown and ">reason<" not in shown and ">n<" in shown


def test_nothing_to_compare_is_said(tmp_path):
    runs = tables.load_runs("DEMO-*", tmp_path)
    assert "No arm has a run" in cards.verdict_cards(runs) and "Nothing found" in cards.warnings(
        runs
    )
    assert cards.config_diff(runs).empty and view_tables.table(cards.config_diff(runs)).to_html()
