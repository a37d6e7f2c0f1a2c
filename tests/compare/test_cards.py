from oelm_lib import compare
from oelm_lib.config import load_config
from oelm_lib.view.tables import table
from tests import runs_factory


def test_cards_of_the_log_say_what_it_showed():
    text = compare.verdict_cards(compare.recorded())
    for part in ("loses 9.8 %", "loses 16.5 %", "loses 14.9 %", "loses 15.5 %"):
        assert part in text
    assert text.count("? UNKNOWN INTERVAL") == 4
    assert "GPT-02 against GPT-01 on tinystories-phase3; n = 1; +0.0931 nats" in text


def test_a_card_says_its_verdict_first_and_how_it_was_reached(demo):
    text = compare.verdict_cards(compare.load_runs("DEMO-*", demo))
    card = text.split("class='oelm-card'")[2]  # DEMO-03
    assert card.index("✗ FAIL") < card.index("OELM-Random</b> loses")
    assert "DEMO-03 against DEMO-01 on stories; 95 % interval over" in card
    assert "jointly for the 3 arms of this baseline; n = 3" in card


def test_untrusted_words_are_escaped(tmp_path):
    bad = "<script>alert(1)</script>"
    for exp in ("DEMO-01", "DEMO-02"):
        changes = {"title": f"Stories, {bad}"}
        changes |= {"model.qk_scale": 2.0} if exp == "DEMO-02" else {}
        runs_factory.make_run(tmp_path, exp, experiment=changes)
    runs = compare.load_runs("DEMO-*", tmp_path)
    shown = [
        compare.verdict_cards(runs),
        compare.warning_list(runs),
        compare.show_results(runs),
        table(compare.matrix(runs))._repr_html_(),
        compare.gap_intervals(runs).to_json(),
    ]
    assert not any(bad in text for text in shown)
    assert "&lt;script&gt;" in compare.verdict_cards(runs)


def test_config_diff_has_a_row_a_key_and_a_column_an_arm(demo):
    diff = compare.config_diff(compare.load_runs("DEMO-*", demo)).set_index("key")
    assert list(diff.index) == list(load_config("DEMO-02").changes)
    columns = ["OELM-Freeze (DEMO-02)", "OELM-Random (DEMO-03)"]
    assert diff.loc["model.qk_scale", columns].tolist() == ["1", "same"]


def test_nothing_to_compare_is_said(tmp_path):
    runs = compare.load_runs("DEMO-*", tmp_path)
    assert "No arm has a run" in compare.verdict_cards(runs)
    assert "Nothing found" in compare.warning_list(runs)
    assert compare.config_diff(runs).empty and table(compare.config_diff(runs)).to_html()
