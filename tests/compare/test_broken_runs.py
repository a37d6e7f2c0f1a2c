"""Every table says what it can of broken and unfinished runs, and of folders without any."""

import json
import math
import shutil

import pandas as pd
import pytest

from oelm_lib import compare
from oelm_lib.config import load_config
from oelm_lib.view.tables import table as show
from tests import runs_factory
from tests.broken_runs import BROKEN, break_run
from tests.runs_factory import make_run

DEMO = load_config("DEMO-02")
STATES = ("queued", "running", "evaluating", "saving", "stopped", "failed", "dead")


def every_table(runs, baseline=None):
    metrics, judged = compare.load_metrics(runs), compare.judge(runs, baseline)
    found = {
        "states": compare.run_states(runs, "DEMO-0[1-4]"),
        "parameters": compare.parameters(runs),
        "verdicts": compare.verdicts(runs, baseline),
        "results": compare.results(runs, judged),
        "ablation": compare.ablation(runs, baseline),
        "cross_corpus": compare.cross_corpus(judged),
        "matched": compare.matched(runs, metrics, baseline=baseline),
    }
    for table in found.values():
        assert "<table" in show(table)
    compare.gap_intervals(judged)
    compare.gap_curves(runs, baseline)
    compare.verdict_cards(judged)
    compare.warning_list(runs, baseline)
    return found


@pytest.fixture(scope="module")
def damaged(tmp_path_factory):
    """The demo with a broken or unfinished DEMO-02 run of each kind beside it, and its tables."""
    outputs = tmp_path_factory.mktemp("damaged")
    runs_factory.make_demo(outputs)
    whole = compare.verdicts(compare.load_runs(outputs=outputs), "DEMO-01")
    for seed, how in enumerate(BROKEN):
        make_run(outputs, "DEMO-01", seed)
        break_run(make_run(outputs, "DEMO-02", seed), how)
    for seed, state in enumerate(STATES, 20):
        make_run(outputs, "DEMO-01", seed)
        make_run(outputs, "DEMO-02", seed, state=state, done=0.5)
    runs = compare.load_runs(outputs=outputs)
    return runs, every_table(runs, "DEMO-01"), whole


def test_broken_runs_change_no_number_of_the_others(damaged):
    runs, found, whole = damaged
    judged = found["verdicts"].set_index("id")
    usable = [42, 43, 44, *(BROKEN.index(how) for how in ("torn", "no_status"))]
    assert judged.loc["DEMO-02", "n"] == len(usable)
    kept = ["n", "nats", "low", "high", "perplexity", "document_error"]
    expected = whole.set_index("id").loc[["DEMO-03", "DEMO-04"], kept]
    pd.testing.assert_frame_equal(judged.loc[["DEMO-03", "DEMO-04"], kept], expected)
    assert found["results"].set_index("id").loc["DEMO-02", "n"] == len(usable)
    assert len(found["states"]) == len(runs)


def test_only_a_run_that_ended_without_a_loss_makes_an_arm_unstable(damaged):
    _, found, _ = damaged
    row = found["verdicts"].set_index("id").loc["DEMO-02"]
    assert (row["verdict"], row["failed"]) == ("UNSTABLE", 2)  # `nan` and `failed`


@pytest.mark.parametrize("how", BROKEN)
def test_a_broken_run_appears_with_its_reason(damaged, how):
    runs, found, _ = damaged
    row = runs.set_index("run").loc[f"DEMO-02_oelm_freeze/seed{BROKEN.index(how)}"]
    if how in ("torn", "no_status"):
        assert (row["state"], row["reason"]) == ("done", "")
    else:
        assert row["reason"] in set(found["states"]["reason"]) - {""}
        assert any(row["reason"] in text for text in compare.warnings(runs, "DEMO-01"))


@pytest.mark.parametrize("state", STATES)
def test_an_unfinished_run_appears_with_its_state(damaged, state):
    _, found, _ = damaged
    rows = found["states"].set_index(["id", "seed"])
    row = rows.loc[("DEMO-02", 20 + STATES.index(state))]
    assert row["state"] == state
    assert row["steps"] == DEMO.train.max_steps // 2
    assert state in row["reason"]


def test_a_first_seed_that_cannot_be_read_leaves_its_arm_a_name(tmp_path):
    break_run(make_run(tmp_path, "DEMO-02", 41), "no_config")
    empty = make_run(tmp_path, "DEMO-02", 42)
    make_run(tmp_path, "DEMO-01", 42)
    (empty / "documents.npz").write_bytes(b"")  # a copy that was cut
    runs = compare.load_runs(outputs=tmp_path)
    row = compare.results(runs, compare.judge(runs)).set_index("id").loc["DEMO-02"]
    assert (row["corpus"], row["arm"], row["n"]) == ("stories", "OELM-Freeze", 1)
    assert math.isnan(compare.verdicts(runs).set_index("id").loc["DEMO-02", "document_error"])


def test_a_missing_baseline_leaves_every_table_its_rows(demo):
    shutil.rmtree(demo / "DEMO-01_baseline")
    runs = compare.load_runs(outputs=demo)
    found = every_table(runs)
    assert set(found["verdicts"]["verdict"]) == {"NOT COMPARED"}
    assert "no run of its baseline DEMO-01" in found["verdicts"]["words"].iloc[0]
    assert found["results"]["final_val_loss"].notna().all()
    assert any("no run of its baseline" in text for text in compare.warnings(runs))


def test_an_empty_outputs_folder_gives_empty_tables(tmp_path):
    found = every_table(compare.load_runs(outputs=tmp_path / "nothing"))
    assert found["states"]["state"].tolist() == ["not run"] * 4
    assert all(len(table) == 0 for name, table in found.items() if name != "states")


def test_losses_whose_perplexity_overflows_are_rows_and_figures(tmp_path):
    for seed in (1, 2, 3):
        make_run(tmp_path, "DEMO-01", seed, final_loss=800.0 + seed, documents=0)
        make_run(tmp_path, "DEMO-02", seed, documents=0)
        make_run(tmp_path, "DEMO-03", seed, final_loss=1700.0 + seed, documents=0)
    runs = compare.load_runs(outputs=tmp_path)
    found = every_table(runs)
    assert found["results"]["final_val_perplexity"].tolist()[0] == math.inf
    assert found["verdicts"]["verdict"].tolist() == ["PASS", "FAIL"]
    assert "over +1,000 %" in compare.show_results(runs, compare.judge(runs))


def test_strings_from_files_are_escaped(tmp_path):
    path = make_run(tmp_path, "DEMO-01", state="failed", done=0.1)
    status = json.loads((path / "status.json").read_text())
    (path / "status.json").write_text(json.dumps(status | {"error": "<script>alert(1)</script>"}))
    runs = compare.load_runs(outputs=tmp_path)
    for html in (show(compare.run_states(runs)), compare.warning_list(runs)):
        assert "<script>" not in html and "&lt;script&gt;" in html
