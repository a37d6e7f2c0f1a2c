import json
import math

import numpy as np
import pytest

from oelm_lib import compare, stats
from oelm_lib.compare.verdict import CONFOUNDED, NOT_COMPARED
from tests.runs_factory import make_run

T5 = {"model.position": "t5"}


def judge(outputs, arm, base=1.3, **changes):
    """Verdict of DEMO-02 with these losses by seed against DEMO-01 with a constant loss."""
    for seed, loss in enumerate(arm):
        make_run(outputs, "DEMO-01", seed, final_loss=base, documents=0)
        make_run(outputs, "DEMO-02", seed, final_loss=loss, documents=0, **changes)
    (row,) = compare.verdicts(compare.load_runs(outputs=outputs)).to_dict("records")
    return row


def lose(path):
    """Make a done run that diverged: its losses are null."""
    summary = json.loads((path / "summary.json").read_text())
    losses = dict.fromkeys(("final_val_loss", "best_val_loss", "final_val_perplexity"))
    (path / "summary.json").write_text(json.dumps(summary | losses))


def test_gaps_are_paired_and_intervals_are_joint_for_the_arms_of_a_baseline(demo):
    runs = compare.load_runs(outputs=demo)
    table = compare.verdicts(runs, "DEMO-01").set_index("id")
    losses = runs.set_index(["id", "seed"])["final_val_loss"]
    for exp in ("DEMO-02", "DEMO-03", "DEMO-04"):
        nats = (losses[exp] - losses["DEMO-01"]).to_numpy()
        interval = stats.paired_interval(nats, 3)
        row = table.loc[exp]
        assert row["gap"] == pytest.approx(math.exp(nats.mean()) - 1)
        assert (row["low"], row["high"]) == (interval.gap_low, interval.gap_high)
        assert (row["n"], row["arms"]) == (3, 3)
        assert row["confidence"] == pytest.approx(1 - 0.05 / 3)
    assert table.loc["DEMO-03", "verdict"] == stats.FAIL


def test_one_arm_needs_no_adjustment(tmp_path):
    row = judge(tmp_path, (1.30, 1.301, 1.299))
    assert (row["arms"], row["confidence"]) == (1, 0.95)


@pytest.mark.parametrize(
    ("losses", "verdict", "words"),
    [
        (
            (1.299, 1.3, 1.301),
            stats.PASS,
            "changes perplexity by −0.0 % [−0.2, +0.2]; the whole interval is below 5"
            " %, and within ±1 %.",
        ),
        (
            (1.499, 1.5, 1.501),
            stats.FAIL,
            "changes perplexity by +22.1 % [+21.8, +22.4]; the whole interval is",
        ),
        (
            (1.3, 1.4, 1.5),
            stats.INCONCLUSIVE,
            "changes perplexity by +10.5 % [−13.8, +41.7]; 3 seeds cannot decide"
            " whether that is above 5 %; ",
        ),
        (
            (1.2, 1.2, 1.2),
            stats.PASS,
            "changes perplexity by −9.5 % [−9.5, −9.5]; the whole interval is below 5 %.",
        ),
        (
            (1.22, 1.27, 1.31),
            stats.INCONCLUSIVE,
            "changes perplexity by −3.3 % [−13.5, +8.2]; 3 seeds cannot decide",
        ),
        (
            (1.4,),
            stats.UNKNOWN,
            "changes perplexity by +10.5 % with one seed; one seed has no interval,"
            " so this may be noise.",
        ),
        ((800.0, 801.0, 802.0), stats.FAIL, "changes perplexity by over +1,000 % ["),
    ],
)
def test_a_verdict_in_words(tmp_path, losses, verdict, words):
    row = judge(tmp_path, losses)
    assert row["verdict"] == verdict
    assert row["words"].startswith(words)


def test_an_open_verdict_says_how_many_seeds_would_decide_it(tmp_path):
    row = judge(tmp_path, (1.3, 1.4, 1.5))
    interval = stats.paired_interval([0.0, 0.1, 0.2])
    few, many = stats.deciding_seeds(interval, stats.bounds_at_most(0.05))
    assert row["to_decide"] == f"about {few} to {many} seeds would decide it"
    assert row["words"].endswith(f"above 5 %; {row['to_decide']}.")


@pytest.mark.parametrize("how", ["failed", "diverged"])
@pytest.mark.parametrize("which", ["DEMO-01", "DEMO-02"])
def test_a_diverged_seed_makes_the_verdict_unstable(tmp_path, how, which):
    for seed in range(4):
        for exp in ("DEMO-01", "DEMO-02"):
            lost = exp == which and seed < 2
            state = "failed" if lost and how == "failed" else "done"
            path = make_run(tmp_path, exp, seed, final_loss=1.3, state=state, documents=0)
            if lost and how == "diverged":
                lose(path)
    (row,) = compare.verdicts(compare.load_runs(outputs=tmp_path)).to_dict("records")
    assert row["verdict"] == stats.UNSTABLE
    assert (row["n"], row["failed"]) == (2, 2)
    assert "2 of 4 seeds diverged or failed" in row["words"]


def test_all_seeds_lost_is_a_row_with_its_reason(tmp_path):
    for seed in (1, 2):
        lose(make_run(tmp_path, "DEMO-01", seed))
        lose(make_run(tmp_path, "DEMO-02", seed))
    runs = compare.load_runs(outputs=tmp_path)
    (row,) = compare.verdicts(runs).to_dict("records")
    assert row["verdict"] == stats.UNSTABLE and math.isnan(row["gap"])
    assert "2 of 2 seeds" in row["words"]
    assert len(compare.results(runs, compare.judge(runs))) == 2


def test_nothing_done_yet_is_not_compared(tmp_path):
    make_run(tmp_path, "DEMO-01", 1)
    make_run(tmp_path, "DEMO-02", 1, state="running", done=0.5)
    (row,) = compare.verdicts(compare.load_runs(outputs=tmp_path)).to_dict("records")
    assert row["verdict"] == NOT_COMPARED
    assert row["words"] == "is not compared: no seed has ended in both arms."


LATE = {"model.freeze_from": 650}
FREEZE = {"model.freeze_q": True, "model.freeze_k": True}


def test_an_arm_that_was_never_frozen_is_not_compared(tmp_path):
    """Such an arm used to get PASS, although its gap is that of two trained arms."""
    for seed in range(3):
        make_run(tmp_path, "DEMO-01", seed, final_loss=1.3)
        make_run(tmp_path, "DEMO-02", seed, final_loss=1.3, experiment=LATE)
    runs = compare.load_runs(outputs=tmp_path)
    (row,) = compare.verdicts(runs).to_dict("records")
    reason = "model.freeze_from = 650 is not before train.max_steps = 650, so W_q and W_k are never"
    assert row["verdict"] == NOT_COMPARED
    assert row["words"] == f"is not compared: {reason} frozen."
    assert f"DEMO-02: {reason} frozen, so there is no gap" in compare.warnings(runs)
    assert len(compare.results(runs, compare.judge(runs))) == 2


def test_a_baseline_that_was_never_frozen_is_a_trained_one(tmp_path):
    for seed, loss in enumerate((1.299, 1.3, 1.301)):
        make_run(tmp_path, "DEMO-01", seed, final_loss=1.3, experiment=LATE | FREEZE)
        make_run(tmp_path, "DEMO-02", seed, final_loss=loss, experiment=T5)
    (row,) = compare.verdicts(compare.load_runs(outputs=tmp_path)).to_dict("records")
    assert row["verdict"] == CONFOUNDED


def test_a_frozen_arm_with_an_addition_gets_no_pass_against_the_plain_baseline(tmp_path):
    row = judge(tmp_path, (1.299, 1.3, 1.301), experiment=T5)
    assert row["verdict"] == CONFOUNDED
    assert row["confounds"] == ["model.position = t5 (baseline: learned)"]
    assert "judge it against a baseline that has the same" in row["words"]


def test_the_same_addition_in_the_baseline_is_no_confound(tmp_path):
    for seed, loss in enumerate((1.299, 1.3, 1.301)):
        make_run(tmp_path, "DEMO-01", seed, final_loss=1.3, experiment=T5)
        make_run(tmp_path, "DEMO-02", seed, final_loss=loss, experiment=T5)
    (row,) = compare.verdicts(compare.load_runs(outputs=tmp_path)).to_dict("records")
    assert (row["verdict"], row["confounds"]) == (stats.PASS, [])


@pytest.mark.parametrize(
    "change", [{"model.delta_rank": 4}, {"model.qk_gain": True}, {"optim.learning_rate": 0.02}]
)
def test_what_trained_qk_can_express_and_a_tuned_rate_are_no_confound(tmp_path, change):
    row = judge(tmp_path, (1.299, 1.3, 1.301), experiment=change)
    assert (row["verdict"], row["confounds"]) == (stats.PASS, [])


def test_an_addition_to_a_trained_arm_is_what_is_tested(tmp_path):
    for seed, loss in enumerate((1.299, 1.3, 1.301)):
        make_run(tmp_path, "DEMO-01", seed, final_loss=1.3)
        trained = {"freeze_q": False, "freeze_k": False, "qk_init": "normal"}
        changes = T5 | {f"model.{key}": value for key, value in trained.items()}
        make_run(tmp_path, "DEMO-02", seed, final_loss=loss, experiment=changes)
    (row,) = compare.verdicts(compare.load_runs(outputs=tmp_path)).to_dict("records")
    assert (row["verdict"], row["confounds"]) == (stats.PASS, [])


def test_document_error_is_that_of_the_paired_documents(demo):
    runs = compare.load_runs(["DEMO-01", "DEMO-02"], demo)
    (row,) = compare.verdicts(runs).to_dict("records")
    files = [np.load(path / "documents.npz") for path in runs["path"]]
    nats = np.mean([files[3 + n]["nats"] - files[n]["nats"] for n in range(3)], axis=0)
    tokens = files[0]["tokens"]
    mean = ({"nats": nats, "tokens": tokens}, {"nats": 0 * nats, "tokens": tokens})
    assert row["document_error"] == stats.document_error([mean])
    (runs["path"].iloc[0] / "documents.npz").unlink()
    assert math.isnan(compare.verdicts(runs)["document_error"].iloc[0])


def test_a_document_error_as_large_as_that_over_seeds_widens_the_interval(tmp_path):
    for seed, loss in enumerate((1.3501, 1.35, 1.3499)):
        make_run(tmp_path, "DEMO-01", seed, final_loss=1.3)
        make_run(tmp_path, "DEMO-02", seed, final_loss=loss)
    (row,) = compare.verdicts(compare.load_runs(outputs=tmp_path)).to_dict("records")
    narrow = stats.paired_interval([0.0501, 0.05, 0.0499])
    assert row["documents_included"]
    assert row["low"] < narrow.gap_low and row["high"] > narrow.gap_high
    assert "more documents are needed" in row["to_decide"]
    assert "seeds and documents" in compare.verdict_cards(
        compare.judge(compare.load_runs(outputs=tmp_path))
    )


def test_a_split_without_tokens_has_no_document_error(tmp_path):
    for exp in ("DEMO-01", "DEMO-02"):
        for seed in (1, 2):
            path = make_run(tmp_path, exp, seed)
            np.savez(path / "documents.npz", nats=np.zeros(3), tokens=np.zeros(3, int))
    runs = compare.load_runs(outputs=tmp_path)
    assert math.isnan(compare.verdicts(runs)["document_error"].iloc[0])


def test_recorded_gaps_are_the_logs_recomputed():
    table = compare.verdicts(compare.recorded()).set_index("id")
    assert table["gap"].mul(100).round(2).to_dict() == {
        "GPT-02": 9.75,
        "GPT-03": 16.45,
        "GPT-05": 14.92,
        "GPT-07": 15.52,
    }
    assert set(table["verdict"]) == {stats.UNKNOWN} and set(table["n"]) == {1}
    assert table["low"].isna().all()
    assert "one seed (best of its evaluations)" in table.loc["GPT-02", "words"]
