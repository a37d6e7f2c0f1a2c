import json
import math
import re
import shutil
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest

from oelm_lib import stats as statistics
from oelm_lib.compare import confounds, tables
from oelm_lib.config import load_config
from oelm_lib.errors import UserError
from oelm_lib.runs import frames
from oelm_lib.view import tables as view_tables
from tests import runs_factory
from tests.runs_factory import make_run

DEMO = load_config("DEMO-02")


def every_table(runs, baseline=None):
    metrics = frames.load_metrics(runs)
    found = {"matrix": tables.matrix(runs, "DEMO-*"), "parameters": tables.parameters(runs)}
    found |= {"time_budget": tables.time_budget(runs)}
    for build in (tables.verdicts, tables.results, tables.ablation, tables.cross_corpus):
        found[build.__name__] = build(runs, baseline)
    for by in ("step", "tokens", "seconds"):
        found[by] = tables.matched(runs, metrics, by, baseline=baseline)
    for table in found.values():
        assert "<table" in view_tables.show(table).to_html()
    confounds.warnings(runs, baseline)
    return found


def seed_losses(runs, exp):
    rows = runs[runs["id"] == exp].set_index("seed")["final_val_loss"]
    return rows.sort_index().to_numpy()


# Recorded figures of the log


def test_recorded_gaps_are_the_logs_recomputed():
    table = tables.verdicts(tables.recorded()).set_index("id")
    assert table["gap"].mul(100).round(2).to_dict() == {
        "GPT-02": 9.75,
        "GPT-03": 16.45,
        "GPT-05": 14.92,
        "GPT-07": 15.52,
    }
    assert set(table["verdict"]) == {statistics.UNKNOWN}
    assert set(table["n"]) == {1}
    assert table["low"].isna().all()
    assert (
        "+9.75 % perplexity vs GPT-01 (+0.0931 nats), no interval, n = 1"
        in table.loc["GPT-02", "sentence"]
    )
    assert set(table["source"]) == {"recorded in the log (other code)"}


def test_recorded_ablation_says_how_much_better_freeze_is_than_random():
    table = tables.ablation(tables.recorded()).set_index("to_id")
    assert table.loc["GPT-03", "from"] == "OELM-Freeze"
    assert table.loc["GPT-03", "gap_back"] * 100 == pytest.approx(-5.75, abs=0.005)
    assert table.loc["GPT-03", "gap"] * 100 == pytest.approx(6.10, abs=0.005)
    assert table.loc["GPT-03", "total_nats"] == pytest.approx(0.1523, abs=5e-5)
    assert table.loc["GPT-03", "differs"] == "model.qk_init, model.qk_scale"


def test_recorded_arms_differ_in_learning_rate():
    found = [
        text
        for text in confounds.warnings(tables.recorded())
        if text.startswith("learning rate differs")
    ]
    assert len(found) == 4
    assert "0.0003 in GPT-01 (recorded), 0.001 in GPT-02 (recorded)" in found[0]


def test_recorded_times_parameters_and_evaluations():
    runs = tables.recorded()
    budget = tables.time_budget(runs).set_index("id")
    assert budget.loc["GPT-01", "evaluation"] == 7269
    assert budget.loc["GPT-01", list(tables.BUDGET)].sum() == pytest.approx(16287.72)
    assert math.isnan(budget.loc["GPT-04", "evaluation"])
    counts = tables.parameters(runs).set_index("id")
    assert counts.loc["GPT-02", ["total", "trainable", "frozen"]].tolist() == [
        44_896_768,
        41_751_040,
        3_145_728,
    ]
    metrics = tables.load_metrics(runs)
    assert metrics[["id", "step", "loss"]].values.tolist()[0] == ["GPT-01", 20000, 1.7315]
    assert len(metrics) == 4
    assert tables.recorded("GPT-0[45]")["id"].tolist() == ["GPT-04", "GPT-05"]


def test_matched_never_compares_unequal_steps():
    """The log set 20,000 steps of one arm beside 19,000 of the other and got +12.4 %."""
    runs = tables.recorded(["GPT-01", "GPT-02"])
    metrics = tables.load_metrics(runs)
    table = tables.matched(runs, metrics, at=[19000, 20000, 59000, 61000])
    assert table["n"].tolist() == [0, 1, 1, 0]
    assert table["gap"].iloc[1] == pytest.approx(0.112, abs=0.002)
    assert np.isnan(table["gap"].iloc[[0, 3]]).all()


# Measured runs


def test_gaps_are_paired_by_seed(demo):
    runs = tables.load_runs(outputs=demo)
    table = tables.verdicts(runs, "DEMO-01").set_index("id")
    for exp in ("DEMO-02", "DEMO-03", "DEMO-04"):
        nats = seed_losses(runs, exp) - seed_losses(runs, "DEMO-01")
        interval = statistics.interval_at(nats, table.loc[exp, "confidence"])
        assert table.loc[exp, "nats"] == pytest.approx(nats.mean())
        assert table.loc[exp, "gap"] == pytest.approx(math.exp(nats.mean()) - 1)
        assert table.loc[exp, "high"] == pytest.approx(math.exp(interval.high) - 1)
        assert table.loc[exp, "seeds"] == [42, 43, 44]
    assert sorted(table["confidence"]) == pytest.approx([0.95, 0.975, 1 - 0.05 / 3])
    tail = (
        r"\(Holm over 3 arms\), SE over documents 0\.\d{4} nats, n = 3, criterion <= \+5 %: FAIL$"
    )
    assert re.search(tail, table.loc["DEMO-02", "sentence"])
    assert confounds.warnings(runs, "DEMO-01") == []


def test_a_clear_pass_and_an_equivalent_arm(tmp_path):
    for seed, shift in ((1, 0.001), (2, -0.001), (3, 0.0)):
        make_run(tmp_path, "DEMO-01", seed, final_loss=1.3 + 0.1 * seed)
        make_run(tmp_path, "DEMO-02", seed, final_loss=1.3 + 0.1 * seed + shift)
    (row,) = tables.verdicts(tables.load_runs(outputs=tmp_path)).to_dict("records")
    assert (row["verdict"], row["equivalent"]) == (statistics.PASS, True)
    assert row["sentence"].endswith("PASS; equivalent within 1 %")


def test_document_error_is_that_of_the_paired_documents(demo):
    runs = tables.load_runs(["DEMO-01", "DEMO-02"], demo)
    (error,) = tables.verdicts(runs)["document_error"]
    files = [np.load(path / "documents.npz") for path in runs["path"]]
    nats = np.mean([files[3 + n]["nats"] - files[n]["nats"] for n in range(3)], axis=0)
    assert error == statistics.bootstrap_documents(nats, files[0]["tokens"])
    (runs["path"].iloc[0] / "documents.npz").unlink()
    assert math.isnan(tables.verdicts(runs)["document_error"].iloc[0])


def test_test_split_is_compared_where_it_was_asked_for(tmp_path):
    for exp in ("DEMO-01", "DEMO-02"):
        for seed in (1, 2):
            make_run(tmp_path, exp, seed, test=True)
    make_run(tmp_path, "DEMO-02", 3)
    table = tables.verdicts(tables.load_runs(outputs=tmp_path), metric="final_test_loss")
    assert table["n"].tolist() == [2]
    assert table["document_error"].iloc[0] > 0


def test_only_shared_seeds_count(tmp_path):
    for exp, seeds in (("DEMO-01", (1, 2, 3)), ("DEMO-02", (2, 3, 4))):
        for seed in seeds:
            make_run(tmp_path, exp, seed)
    runs = tables.load_runs(outputs=tmp_path)
    assert tables.verdicts(runs)["seeds"].tolist() == [[2, 3]]
    assert tables.results(runs)["gap_n"].tolist()[1] == 2
    assert tables.results(runs)["n"].tolist() == [3, 3]


def test_results_give_means_and_their_base(demo):
    runs = tables.load_runs(outputs=demo)
    table = tables.results(runs, "DEMO-01").set_index("id")
    mean = seed_losses(runs, "DEMO-02").mean()
    assert table.loc["DEMO-02", "final_val_perplexity"] == pytest.approx(math.exp(mean))
    assert table.loc["DEMO-02", "baseline"] == "DEMO-01"
    assert table.loc["DEMO-02", "final_bits_per_byte"] == pytest.approx(
        mean / math.log(2) * 110_000 / 440_000
    )
    assert math.isnan(table.loc["DEMO-01", "gap"])


def test_ablation_adds_up_to_the_whole_gap(demo):
    table = tables.ablation(tables.load_runs(outputs=demo))
    assert table["nats"].cumsum().tolist() == pytest.approx(table["total_nats"].tolist())
    assert table["from"].tolist() == ["baseline", *table["to"].tolist()[:-1]]
    assert table["total_nats"].is_monotonic_increasing


def test_two_tokenizers_leave_only_bits_per_byte(demo):
    make_run(demo, "DEMO-02", 42, overrides="data.tokenizer=gpt2 model.vocab_size=50257")
    runs = tables.load_runs(outputs=demo)
    table = tables.results(runs)
    assert table["final_val_perplexity"].isna().all() and table["final_val_loss"].isna().all()
    assert table["final_bits_per_byte"].notna().all()
    (lonely,) = [row for row in tables.verdicts(runs).to_dict("records") if "+" in row["variant"]]
    assert lonely["verdict"] == "NOT COMPARED" and "tokenizer" in lonely["reason"]


def test_rehearsals_are_judged_among_themselves_and_never_called_the_experiment(demo):
    for exp in ("DEMO-01", "DEMO-02"):
        make_run(demo, exp, 42, overrides="train.max_steps=130", final_loss=2.0)
    table = tables.verdicts(tables.load_runs(outputs=demo)).set_index("variant")
    (rehearsal,) = [variant for variant in table.index if "+" in variant]
    assert table.loc[rehearsal, "gap"] == 0
    assert f"({rehearsal}) on stories" in table.loc[rehearsal, "sentence"]
    assert table.loc[rehearsal, "baseline"].startswith("DEMO-01_baseline+")
    assert table.loc["DEMO-02_oelm_freeze", "n"] == 3
    for name, shown in every_table(tables.load_runs(outputs=demo)).items():
        assert rehearsal in set(shown["to_id" if name == "ablation" else "id"]), name


def test_a_rehearsal_does_not_count_as_the_experiment(tmp_path):
    make_run(tmp_path, "DEMO-01", 42, overrides="train.max_steps=130")
    states = tables.matrix(tables.load_runs(outputs=tmp_path), "DEMO-01")[["id", "state"]]
    assert states["state"].tolist() == ["done", "not run"]
    assert states["id"].tolist()[1] == "DEMO-01"


def test_recorded_and_measured_runs_never_mix(tmp_path):
    for exp in ("GPT-01", "GPT-02"):
        make_run(tmp_path, exp, 42, final_loss=1.5, train_every=10_000)
    runs = pd.concat([tables.load_runs(outputs=tmp_path), tables.recorded()], ignore_index=True)
    table = tables.verdicts(runs)
    both = table[table["id"] == "GPT-02"].set_index("source")["gap"]
    assert both[frames.MEASURED] == 0
    assert both[frames.RECORDED] == pytest.approx(0.0975, abs=5e-5)


def test_time_budget_closes_to_the_wall_time(demo):
    table = tables.time_budget(tables.load_runs(outputs=demo))
    assert table[list(tables.BUDGET)].sum(axis=1).tolist() == pytest.approx(
        table["wall_seconds"].tolist()
    )


def test_matched_interpolates_between_evaluations(demo):
    runs = tables.load_runs(["DEMO-01", "DEMO-02"], demo)
    metrics = tables.load_metrics(runs)
    step = 2 * DEMO.train.eval_interval
    at_eval = tables.matched(runs, metrics, at=[step])
    evals = (
        metrics[(metrics["event"] == "eval") & (metrics["step"] == step)]
        .groupby("id")["loss"]
        .mean()
    )
    assert at_eval["nats"].iloc[0] == pytest.approx(evals["DEMO-02"] - evals["DEMO-01"])
    tokens = tables.matched(
        runs, metrics, "tokens", at=[runs["tokens"].iloc[0] / runs["steps"].iloc[0] * step]
    )
    assert tokens["nats"].iloc[0] == pytest.approx(at_eval["nats"].iloc[0])
    seconds = tables.matched(runs, metrics, "seconds")
    assert seconds["n"].tolist()[1:] == [3, 3, 3]
    with pytest.raises(UserError, match="use step, tokens or seconds"):
        tables.matched(runs, metrics, "hours")


def test_parameters_and_proof_of_freeze(demo):
    runs = tables.load_runs(outputs=demo)
    table = tables.parameters(runs).set_index("id")
    assert table.loc["DEMO-02", "frozen"] == 2 * DEMO.model.num_layers * DEMO.model.d_model**2
    assert table.loc["DEMO-02", "freeze_proven"] is True
    assert table.loc["DEMO-01", "freeze_proven"] is None
    file = runs.set_index("run").loc["DEMO-02_oelm_freeze/seed42", "path"] / "summary.json"
    summary = json.loads(file.read_text())
    summary["frozen"][0]["sha256_end"] = "0" * 64
    file.write_text(json.dumps(summary))
    runs = tables.load_runs(outputs=demo)
    assert tables.parameters(runs).set_index("id").loc["DEMO-02", "freeze_proven"] is False
    assert "DEMO-02_oelm_freeze/seed42: the frozen parameters changed." in confounds.warnings(runs)


# Bad input


STATES = ("queued", "running", "evaluating", "saving", "stopped", "failed", "dead")


@pytest.fixture(scope="module")
def damaged(tmp_path_factory):
    """The demo with a broken or unfinished DEMO-02 run of each kind beside it, its frame and its tables."""
    outputs = tmp_path_factory.mktemp("damaged")
    runs_factory.make_demo(outputs)
    whole = tables.verdicts(tables.load_runs(outputs=outputs), "DEMO-01")
    for seed, how in enumerate(runs_factory.BROKEN):
        make_run(outputs, "DEMO-01", seed)
        runs_factory.break_run(make_run(outputs, "DEMO-02", seed), how)
    for seed, state in enumerate(STATES, 20):
        make_run(outputs, "DEMO-01", seed)
        make_run(outputs, "DEMO-02", seed, state=state, done=0.5)
    runs = tables.load_runs(outputs=outputs)
    return runs, every_table(runs, "DEMO-01"), whole


def test_broken_runs_change_no_number_of_the_others(damaged):
    runs, found, whole = damaged
    judged = found["verdicts"].set_index("id")
    usable = [42, 43, 44, *(runs_factory.BROKEN.index(how) for how in ("torn", "no_status"))]
    assert judged.loc["DEMO-02", "seeds"] == sorted(usable)
    kept = ["n", "nats", "perplexity", "document_error"]
    expected = whole.set_index("id").loc[["DEMO-03", "DEMO-04"], kept]
    pd.testing.assert_frame_equal(judged.loc[["DEMO-03", "DEMO-04"], kept], expected)
    assert found["results"].set_index("id").loc["DEMO-02", "n"] == len(usable)
    assert len(found["matrix"]) == len(runs)


@pytest.mark.parametrize("how", runs_factory.BROKEN)
def test_a_broken_run_appears_with_its_reason(damaged, how):
    runs, found, _ = damaged
    row = runs.set_index("run").loc[f"DEMO-02_oelm_freeze/seed{runs_factory.BROKEN.index(how)}"]
    if how in ("torn", "no_status"):
        assert (row["state"], row["reason"]) == ("done", "")
    else:
        assert row["reason"] in set(found["matrix"]["reason"]) - {""}
        assert any(row["reason"] in text for text in confounds.warnings(runs, "DEMO-01"))


@pytest.mark.parametrize("state", STATES)
def test_an_unfinished_run_appears_with_its_state(damaged, state):
    _, found, _ = damaged
    rows = found["matrix"].set_index(["id", "seed"])
    row = rows.loc[("DEMO-02", 20 + STATES.index(state))]
    assert row["state"] == state
    assert row["steps"] == DEMO.train.max_steps // 2
    assert state in row["reason"]


def test_a_first_seed_that_cannot_be_read_leaves_its_arm_a_name(tmp_path):
    runs_factory.break_run(make_run(tmp_path, "DEMO-02", 41), "no_config")
    empty = make_run(tmp_path, "DEMO-02", 42)
    make_run(tmp_path, "DEMO-01", 42)
    (empty / "documents.npz").write_bytes(b"")  # a copy that was cut
    runs = tables.load_runs(outputs=tmp_path)
    row = tables.results(runs).set_index("id").loc["DEMO-02"]
    assert (row["corpus"], row["arm"], row["n"]) == ("stories", "OELM-Freeze", 1)
    assert math.isnan(tables.verdicts(runs).set_index("id").loc["DEMO-02", "document_error"])


def test_a_missing_baseline_is_a_reason(demo):
    shutil.rmtree(demo / "DEMO-01_baseline")
    runs = tables.load_runs(outputs=demo)
    found = every_table(runs)
    assert set(found["verdicts"]["verdict"]) == {"NOT COMPARED"}
    assert "no run of its baseline DEMO-01" in found["verdicts"]["sentence"].iloc[0]
    assert found["results"]["final_val_loss"].notna().all()
    assert any("no run of its baseline" in text for text in confounds.warnings(runs))


def test_an_empty_outputs_folder_gives_empty_tables(tmp_path):
    found = every_table(tables.load_runs(outputs=tmp_path / "nothing"))
    assert found["matrix"]["state"].tolist() == ["not run"] * 4
    assert all(len(table) == 0 for name, table in found.items() if name != "matrix")


def test_a_mistyped_experiment_or_baseline_is_one_line(demo):
    with pytest.raises(UserError, match=r"exps: 'DMO-01' matches no experiment; allowed: CPU-01"):
        tables.load_runs("DEMO-02, DMO-01", demo)
    with pytest.raises(UserError, match=r"no experiment 'DEMO-09' \(did you mean DEMO-0"):
        tables.verdicts(tables.load_runs(outputs=demo), "DEMO-09")
    assert len(tables.load_runs(["GPT-01"], demo)) == 0


def test_strings_from_files_are_escaped(tmp_path):
    path = make_run(tmp_path, "DEMO-01", state="failed", done=0.1)
    status = json.loads((path / "status.json").read_text())
    (path / "status.json").write_text(json.dumps(status | {"error": "<script>alert(1)</script>"}))
    shown = view_tables.show(tables.matrix(tables.load_runs(outputs=tmp_path))).to_html()
    assert "<script>" not in shown and "&lt;script&gt;" in shown


def test_tables_need_no_torch():
    code = "import sys; from oelm_lib.compare import tables, confounds; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_corpora_say_what_was_read_once_a_corpus(demo):
    table = tables.corpora(tables.load_runs(outputs=demo))
    assert table["split"].is_unique
    train = table.set_index("split").loc["train"]
    assert train["kind"] == "synthetic"
    seen = DEMO.train.max_steps * DEMO.train.batch_size * DEMO.model.max_seq_len
    assert train["epochs"] == pytest.approx(seen / train["tokens"])
    assert tables.corpora(tables.recorded()).empty


def test_results_of_no_runs_can_be_shown(tmp_path):

    table = tables.results(tables.load_runs(outputs=tmp_path))
    assert table.empty and "<table" in view_tables.table(table.drop(columns="reason"))._repr_html_()
