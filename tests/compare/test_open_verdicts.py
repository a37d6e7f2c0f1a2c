import pytest

from oelm_lib import compare, stats
from oelm_lib.compare.open_verdicts import MOST_LISTED
from tests.runs_factory import make_run

T5 = "model.position=t5"


def steps(outputs, losses, **changes):
    """next_steps of DEMO-02 with these losses by seed against DEMO-01 with a constant loss."""
    for seed, loss in enumerate(losses, 42):
        for exp, final_loss in (("DEMO-01", 1.3), ("DEMO-02", loss)):
            make_run(outputs, exp, seed, final_loss=final_loss, documents=0, **changes)
    judged = compare.judge(compare.load_runs(outputs=outputs))
    return judged, compare.next_steps(judged)


def test_an_open_verdict_has_the_command_that_trains_arm_and_baseline(tmp_path):
    (one,), text = steps(tmp_path, (1.37, 1.4, 1.43))
    interval = stats.paired_interval([0.07, 0.1, 0.13])
    _, many = stats.deciding_seeds(interval, stats.bounds_at_most(0.05))
    assert f"to {many} seeds" in one.to_decide and 3 < many < MOST_LISTED
    seeds = ",".join(map(str, range(45, 42 + many)))
    assert f"<code>oelm run DEMO-01 DEMO-02 --seeds {seeds}</code>" in text
    assert f"Train {many} in all before you look again" in text


def test_one_seed_asks_for_eight(tmp_path):
    _, text = steps(tmp_path, (1.35,))
    assert "--seeds 43,44,45,46,47,48,49</code>" in text


def test_rehearsals_are_continued_with_their_overrides(tmp_path):
    _, text = steps(tmp_path, (1.35,), overrides=T5)
    assert f"oelm run DEMO-01 DEMO-02 --seeds 43,44,45,46,47,48,49 --set {T5}</code>" in text


@pytest.mark.parametrize("losses", [(1.299, 1.3, 1.301), (1.3487, 1.349, 1.3488)])
def test_a_decided_verdict_and_one_on_the_limit_ask_for_nothing(tmp_path, losses):
    assert steps(tmp_path, losses)[1] == ""


def test_the_log_asks_for_nothing():
    assert compare.next_steps(compare.judge(compare.recorded())) == ""


def test_the_log_is_shown_beside_its_experiments_only():
    assert compare.show_recorded("DEMO-* GPT-08 GPT-02*+*") == ""
    text = compare.show_recorded("GPT-02")
    assert "Recorded in the log" in text and "GPT-02 against GPT-01" in text
    assert "GPT-03" not in text
