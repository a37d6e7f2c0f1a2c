import math

import pytest

from oelm_lib import compare
from oelm_lib.compare.results_table import COLUMNS
from tests.runs_factory import make_run


def results(runs, baseline=None):
    return compare.results(runs, compare.judge(runs, baseline))


def show_results(runs):
    return compare.show_results(runs, compare.judge(runs))


def test_results_are_means_with_the_gap_of_the_verdict(demo):
    runs = compare.load_runs(outputs=demo)
    table = results(runs, "DEMO-01").set_index("id")
    mean = runs.loc[runs["id"] == "DEMO-02", "final_val_loss"].mean()
    row = table.loc["DEMO-02"]
    assert row["final_val_perplexity"] == pytest.approx(math.exp(mean))
    assert row["final_bits_per_byte"] == pytest.approx(mean / math.log(2) * 110_000 / 440_000)
    judged = compare.verdicts(runs, "DEMO-01").set_index("id").loc["DEMO-02"]
    assert row[["gap", "low", "high"]].tolist() == judged[["gap", "low", "high"]].tolist()
    assert math.isnan(table.loc["DEMO-01", "gap"])


def test_n_counts_the_done_runs_and_gap_n_the_shared_seeds(tmp_path):
    for exp, seeds in (("DEMO-01", (1, 2, 3)), ("DEMO-02", (2, 3, 4))):
        for seed in seeds:
            make_run(tmp_path, exp, seed)
    table = results(compare.load_runs(outputs=tmp_path))
    assert table["n"].tolist() == [3, 3]
    assert table["gap_n"].tolist()[1] == 2
    shown = show_results(compare.load_runs(outputs=tmp_path)).partition("<details")[0]
    assert shown.count("3 (2 paired)") == 1 and shown.count("paired") == 1


def test_two_tokenizers_leave_only_bits_per_byte(demo):
    make_run(demo, "DEMO-02", 42, overrides="data.tokenizer=gpt2 model.vocab_size=50257")
    runs = compare.load_runs(outputs=demo)
    table = results(runs)
    assert table["final_val_perplexity"].isna().all() and table["final_val_loss"].isna().all()
    assert table["final_bits_per_byte"].notna().all()
    (lonely,) = [row for row in compare.verdicts(runs).to_dict("records") if "+" in row["variant"]]
    assert lonely["verdict"] == "NOT COMPARED" and "tokenizer" in lonely["reason"]


def test_the_page_shows_the_main_columns_and_folds_the_rest(demo):
    html = show_results(compare.load_runs(outputs=demo))
    main, _, folded = html.partition("<details")
    assert ">perplexity<" in main and ">best val loss<" not in main and ">best val loss<" in folded
    assert "✗ FAIL" in main
    assert ">gap to DEMO-01<" in main and main.count("<th ") <= 8
    assert "learning rate: 0.01" in folded and ">gap n<" in folded
    assert set(results(compare.load_runs(outputs=demo))) == set(COLUMNS)


def test_recorded_perplexities_are_headed_as_the_best():
    html = show_results(compare.recorded())
    caption = html.partition("</caption>")[0]
    assert "perplexity of: best of its evaluations" in caption and "last weights" not in html
    assert "4h 31m 28s" in html


def test_several_learning_rates_are_all_named(tmp_path):
    make_run(tmp_path, "DEMO-01", 1)
    make_run(tmp_path, "DEMO-01", 2, experiment={"optim.learning_rate": 0.02})
    assert results(compare.load_runs(outputs=tmp_path))["learning_rate"][0] == "0.01, 0.02"


def test_results_of_no_runs_can_be_shown(tmp_path):
    runs = compare.load_runs(outputs=tmp_path)
    assert results(runs).empty and "<table" in show_results(runs)
