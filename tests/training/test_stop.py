"""Signals and STOP files ask a run to save and stop."""

import os
import signal

from oelm_lib import runs
from oelm_lib.runs import stop as stopping
from oelm_lib.training import result
from oelm_lib.training.state import TrainingState
from tests.clocked import without_clock
from tests.training.helpers import rows_of, train


def test_a_stop_file_and_a_signal_save_and_stop(tiny_run, monkeypatch):
    run = tiny_run()
    (run.path / "STOP").touch()
    train(run)
    assert (runs.read_status(run)["state"], runs.read_status(run)["step"]) == ("stopped", 0)
    assert not (run.path / "STOP").exists()
    update = TrainingState.update

    def signal_after_step_9(state):
        rate = update(state)
        if state.step == 9:
            os.kill(os.getpid(), signal.SIGTERM)
        return rate

    monkeypatch.setattr(TrainingState, "update", signal_after_step_9)
    before = signal.getsignal(signal.SIGTERM)
    train(tiny_run())
    assert (runs.read_status(run)["state"], runs.read_status(run)["step"]) == ("stopped", 9)
    assert signal.getsignal(signal.SIGTERM) == before


def test_a_stop_in_the_final_evaluation_is_heard_and_nothing_is_lost(tiny_run, monkeypatch):
    undisturbed = tiny_run(folder="a")
    train(undisturbed)
    whole_split_losses, scored = result.whole_split_losses, []

    def stopped(session):
        (session.run.path / "STOP").touch()
        scored.append(whole_split_losses(session))
        return scored[-1]

    run = tiny_run(folder="b")
    with monkeypatch.context() as patch:
        patch.setattr(stopping, "FILE_SECONDS", 0.0)
        patch.setattr(result, "whole_split_losses", stopped)
        assert train(run) == {}
    assert len(scored[0]) < len(run.corpus.tokens("val")) - 1  # cut short
    assert not (run.path / "STOP").exists()
    assert (runs.read_status(run)["state"], runs.read_status(run)["step"]) == ("stopped", 24)
    train(tiny_run(folder="b"))
    assert without_clock(rows_of(run)) == without_clock(rows_of(undisturbed))
    summaries = [runs.read_summary(run), runs.read_summary(undisturbed)]
    assert without_clock(summaries[:1]) == without_clock(summaries[1:])
