import json
import math

import numpy as np
import pytest

from oelm_lib import compare
from oelm_lib.config import load_config
from oelm_lib.data.corpus import epoch_steps
from oelm_lib.errors import UserError
from oelm_lib.report.journal import journal
from tests.runs_factory import make_run

DEMO = load_config("DEMO-02")


def test_arms_are_ordered_by_their_paired_gaps_not_by_seeds_that_others_lack(tmp_path):
    for seed, easy in ((1, 0), (2, 0.01), (3, 0.02), (4, -0.3), (5, -0.4)):
        for exp, gap in (("DEMO-01", 0.0), ("DEMO-02", 0.07), ("DEMO-04", 0.05)):
            if exp != "DEMO-04" or seed < 4:
                make_run(tmp_path, exp, seed, final_loss=1.5 + easy + gap)
    table = compare.ablation(compare.load_runs(outputs=tmp_path))
    assert table["to_id"].tolist() == ["DEMO-04", "DEMO-02"]
    assert table["nats"].tolist() == pytest.approx([0.05, 0.02])
    said = [line for line in journal(tmp_path).splitlines() if "better than" in line]
    assert any("frozen Gaussian is **1.98 %** better than OELM-Freeze" in line for line in said)


def test_between_arms_without_a_shared_seed_nothing_is_said(tmp_path):
    for seed in range(1, 7):
        make_run(tmp_path, "DEMO-01", seed)
        make_run(tmp_path, "DEMO-04" if seed < 4 else "DEMO-02", seed)
    text = journal(tmp_path)
    section = text[text.index("measured by this code)") : text.index("recorded in the log, other")]
    assert "better than" not in section and "nan" not in section


def test_ablation_adds_up_to_the_whole_gap(demo):
    table = compare.ablation(compare.load_runs(outputs=demo))
    assert table["nats"].cumsum().tolist() == pytest.approx(table["total_nats"].tolist())
    assert table["from"].tolist() == ["baseline", *table["to"].tolist()[:-1]]
    assert table["total_nats"].is_monotonic_increasing


def test_recorded_ablation_says_how_much_better_freeze_is_than_random():
    row = compare.ablation(compare.recorded()).set_index("to_id").loc["GPT-03"]
    assert row["from"] == "OELM-Freeze"
    assert row["gap_back"] * 100 == pytest.approx(-5.75, abs=0.005)
    assert row["gap"] * 100 == pytest.approx(6.10, abs=0.005)
    assert row["total_nats"] == pytest.approx(0.1523, abs=5e-5)
    assert row["differs"] == "model.qk_init, model.qk_scale"


def test_matched_never_compares_unequal_steps():
    """The log set 20,000 steps of one arm beside 19,000 of the other and got +12.4 %."""
    runs = compare.recorded(["GPT-01", "GPT-02"])
    metrics = compare.load_metrics(runs)
    table = compare.matched(runs, metrics, at=[19000, 20000, 59000, 61000])
    assert table["n"].tolist() == [0, 1, 1, 0]
    assert table["gap"].iloc[1] == pytest.approx(0.112, abs=0.002)
    assert np.isnan(table["gap"].iloc[[0, 3]]).all()


def test_matched_interpolates_between_evaluations(demo):
    runs = compare.load_runs(["DEMO-01", "DEMO-02"], demo)
    metrics = compare.load_metrics(runs)
    step = 2 * DEMO.train.eval_interval
    at_eval = compare.matched(runs, metrics, at=[step])
    evals = metrics[(metrics["event"] == "eval") & (metrics["step"] == step)]
    means = evals.groupby("id")["loss"].mean()
    assert at_eval["nats"].iloc[0] == pytest.approx(means["DEMO-02"] - means["DEMO-01"])
    tokens = runs["tokens"].iloc[0] / runs["steps"].iloc[0] * step
    by_tokens = compare.matched(runs, metrics, "tokens", at=[tokens])
    assert by_tokens["nats"].iloc[0] == pytest.approx(at_eval["nats"].iloc[0])
    assert compare.matched(runs, metrics, at=[0, -1])["n"].tolist() == [0, 0]
    assert compare.matched(runs, metrics, "seconds")["n"].tolist()[1:] == [3, 3, 3]
    with pytest.raises(UserError, match="use step, tokens or seconds"):
        compare.matched(runs, metrics, "hours")


def test_unadjusted_intervals_are_named_so(demo):
    runs = compare.load_runs(outputs=demo)
    for table in (compare.ablation(runs), compare.matched(runs, compare.load_metrics(runs))):
        assert {"unadjusted_low", "unadjusted_high"} <= set(table)
        assert not {"low", "high"} & set(table)


def test_parameters_and_proof_of_freeze(demo):
    runs = compare.load_runs(outputs=demo)
    table = compare.parameters(runs).set_index("id")
    assert table.loc["DEMO-02", "frozen"] == 2 * DEMO.model.num_layers * DEMO.model.d_model**2
    assert table.loc["DEMO-02", "freeze_proven"] is True
    assert table.loc["DEMO-01", "freeze_proven"] is None
    counts = compare.parameters(compare.recorded()).set_index("id").loc["GPT-02"]
    assert counts[["total", "trainable", "frozen"]].tolist() == [44_896_768, 41_751_040, 3_145_728]
    file = runs.set_index("run").loc["DEMO-02_oelm_freeze/seed42", "path"] / "summary.json"
    summary = json.loads(file.read_text())
    summary["frozen"][0]["sha256_end"] = "0" * 64
    file.write_text(json.dumps(summary))
    runs = compare.load_runs(outputs=demo)
    assert compare.parameters(runs).set_index("id").loc["DEMO-02", "freeze_proven"] is False
    assert "DEMO-02_oelm_freeze/seed42: the frozen parameters changed" in compare.warnings(runs)


def test_corpora_say_what_was_read_once_a_corpus(demo):
    table = compare.corpora(compare.load_runs(outputs=demo))
    assert table["split"].is_unique
    train = table.set_index("split").loc["train"]
    assert train["kind"] == "synthetic"
    epoch = epoch_steps(train["tokens"], DEMO.model.max_seq_len, DEMO.train.batch_size)
    assert train["epochs"] == pytest.approx(DEMO.train.max_steps / epoch)
    assert compare.corpora(compare.recorded()).empty


def test_a_split_without_tokens_has_no_bytes_per_token(tmp_path):
    make_run(tmp_path, "GPT-01", 1, train_every=10_000)  # the -phase3 corpora have no test split
    table = compare.corpora(compare.load_runs(outputs=tmp_path)).set_index("split")
    assert table.loc["test", "tokens"] == 0 and math.isnan(table.loc["test", "bytes_per_token"])


def test_a_rehearsal_does_not_count_as_the_experiment(tmp_path):
    make_run(tmp_path, "DEMO-01", 42, overrides="train.max_steps=130")
    table = compare.run_states(compare.load_runs(outputs=tmp_path), "DEMO-01")
    assert table["state"].tolist() == ["done", "not run"]
    assert table["id"].tolist()[1] == "DEMO-01"


def test_cross_corpus_has_a_row_for_each_arm_and_corpus():
    table = compare.cross_corpus(compare.judge(compare.recorded()))
    freeze = table[table["arm"] == "OELM-Freeze"]
    assert freeze["id"].tolist() == ["GPT-02", "GPT-05", "GPT-07"]
