import json

from oelm_lib import compare
from oelm_lib.config import load_config
from oelm_lib.view.tables import table
from tests import runs_factory


def test_cards_of_the_log_say_what_it_showed():
    text = compare.verdict_cards(compare.judge(compare.recorded()))
    for part in (
        "changes perplexity by +9.8\u00a0%",
        "changes perplexity by +16.5\u00a0%",
        "changes perplexity by +14.9\u00a0%",
        "changes perplexity by +15.5\u00a0%",
    ):
        assert part in text
    assert text.count("? UNKNOWN INTERVAL") == 4
    assert "GPT-02 against GPT-01 on tinystories-phase3; W_q and W_k frozen at" in text
    assert "difference in loss +0.0931 nats per token" in text


def test_a_card_says_its_verdict_first_and_how_it_was_reached(demo):
    text = compare.verdict_cards(compare.judge(compare.load_runs("DEMO-*", demo)))
    card = text.split("class='oelm-card'")[2]  # DEMO-03
    assert card.index("✗ FAIL") < card.index("OELM-Random</b> changes")
    where = "DEMO-03 against DEMO-01 on stories; W_q and W_k frozen at Gaussian rows of expected"
    assert where in card and "nats" not in card[: card.index("<details>")]
    assert "95\u00a0% interval over seeds, jointly for the 3 arms of this baseline" in card


def test_the_subtitle_says_what_is_frozen_in_which_models_on_what(demo):
    text = compare.subtitle(compare.load_runs("DEMO-*", demo))
    assert "<b>Frozen query or key projections:</b> W_q and W_k in 3 of 4 arms." in text
    assert "<b>Model:</b> 0.17 million parameters." in text
    assert "<b>Text:</b> stories (generated), 0.67 million tokens read." in text
    assert "<b>Learning rate:</b> 0.01 in every arm." in text
    assert "<b>Seeds:</b> 42, 43, 44." in text


def test_the_subtitle_of_the_log_names_its_tokens_without_an_exponent():
    """The subtitle used to say `4.1e+02 million tokens read`."""
    text = compare.subtitle(compare.recorded("GPT-0[12]"))
    assert "<b>Model:</b> 45 million parameters." in text
    assert "410 million tokens read." in text


def test_the_subtitle_counts_the_arms_that_freeze_one_projection(demo):
    runs_factory.make_run(demo, "DEMO-02", overrides="model.freeze_q=false")
    text = compare.subtitle(compare.load_runs("DEMO-*", demo))
    assert "W_q and W_k in 3 of 5 arms, W_k in 1 of 5 arms." in text


def test_the_subtitle_names_the_range_of_learning_rates_where_arms_differ(tmp_path):
    for exp in ("DEMO-01", "DEMO-02"):
        rate = {"optim.learning_rate": 0.005} if exp == "DEMO-02" else {}
        runs_factory.make_run(tmp_path, exp, experiment=rate)
    text = compare.subtitle(compare.load_runs("DEMO-*", tmp_path))
    assert "<b>Learning rate:</b> 0.005 to 0.01, not the same in every arm." in text


def test_untrusted_words_are_escaped(tmp_path):
    bad = "<script>alert(1)</script>"
    for exp in ("DEMO-01", "DEMO-02"):
        changes = {"title": f"Stories, {bad}"}
        changes |= {"model.qk_scale": 2.0} if exp == "DEMO-02" else {}
        runs_factory.make_run(tmp_path, exp, experiment=changes)
    runs = compare.load_runs("DEMO-*", tmp_path)
    judged = compare.judge(runs)
    shown = [
        compare.verdict_cards(judged),
        compare.warning_list(runs),
        compare.show_results(runs, judged),
        table(compare.run_states(runs)),
        json.dumps(compare.gap_intervals(judged).outputs()[0]["data"]),
    ]
    assert not any(bad in text for text in shown)
    assert "&lt;script&gt;" in compare.verdict_cards(judged)


def test_config_diff_has_a_row_a_key_and_a_column_an_arm(demo):
    diff = compare.config_diff(compare.load_runs("DEMO-*", demo)).set_index("key")
    assert list(diff.index) == list(load_config("DEMO-02").changes)
    columns = ["OELM-Freeze (DEMO-02)", "OELM-Random (DEMO-03)"]
    assert diff.loc["model.qk_scale", columns].tolist() == ["1", "same"]


def test_config_diff_says_same_of_arms_with_that_baseline_only(tmp_path):
    """GPT-14 was said to have the position embeddings of GPT-09, which is not its baseline."""
    for exp in ("GPT-09", "GPT-13", "GPT-14"):
        runs_factory.make_run(tmp_path, exp, train_every=10_000)
    diff = compare.config_diff(compare.load_runs("GPT-*", tmp_path)).set_index(["against", "key"])
    (trained,), (frozen,) = (
        [column for column in diff if exp in column] for exp in ("GPT-13", "GPT-14")
    )
    assert diff.loc[("GPT-09", "model.position"), [trained, frozen]].tolist() == ["t5", ""]
    assert diff.loc[("GPT-13", "model.freeze_q"), [trained, frozen]].tolist() == ["", "True"]


def test_nothing_to_compare_is_said(tmp_path):
    runs = compare.load_runs("DEMO-*", tmp_path)
    assert "No arm has a run" in compare.verdict_cards(compare.judge(runs))
    assert compare.warning_list(runs) == compare.next_steps([]) == ""
    assert compare.config_diff(runs).empty and "<table" in table(compare.config_diff(runs))
