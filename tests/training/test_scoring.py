"""The test split is scored once, at the end of a confirmation run, with the last weights."""

import math
import shutil

import numpy as np
import pytest
import torch

from oelm_lib import runs
from oelm_lib.data.batches import EvalWindows
from oelm_lib.data.corpus import open_test
from oelm_lib.errors import DONE, UserError
from oelm_lib.files import with_checksum
from oelm_lib.launch.jobs import Job
from oelm_lib.launch.notebook import _report_done
from oelm_lib.training import checkpoint, open_trained, score_test_split, scoring
from oelm_lib.training.evaluation import mean_loss, token_losses
from tests.training.helpers import train


def loss_on(tokens, trained):
    """Loss of a model on a whole split."""
    windows = EvalWindows(tokens, trained.config.model.max_seq_len, torch.device("cpu"))
    return mean_loss(token_losses(trained.model, windows, np.arange(windows.count)))


def test_the_last_weights_are_scored_on_the_test_split(tiny_run):
    rise = {"optim__learning_rate": 1.0, "optim__warmup_steps": 24, "train__eval_interval": 4}
    run = tiny_run(**rise)
    summary = train(run)
    assert summary["final_test_loss"] is None
    before = dict(np.load(run.path / "documents.npz"))
    loss = score_test_split(run)
    last, best = open_trained(run.path), open_trained(run.path, "best")
    assert (last.step, best.step < 24) == (24, True)
    assert loss == loss_on(open_test(run.corpus), last)
    assert loss != pytest.approx(loss_on(run.corpus.tokens("val"), last), rel=1e-6)
    assert loss != pytest.approx(loss_on(open_test(run.corpus), best), rel=1e-6)
    assert runs.read_summary(run) == with_checksum(
        summary | {"final_test_loss": loss, "test_scored": True}
    )
    after = dict(np.load(run.path / "documents.npz"))
    assert all(np.array_equal(after[name], values) for name, values in before.items())
    assert after["test_tokens"].sum() == len(open_test(run.corpus)) - 1
    assert after["test_nats"].sum() / after["test_tokens"].sum() == pytest.approx(loss, rel=1e-9)
    assert len(after["test_nats"]) == run.corpus.manifest["splits"]["test"]["documents"]
    assert not (run.path / "lock.json").exists()


def test_a_run_is_scored_once(tiny_run):
    run = tiny_run()
    train(run)
    loss = score_test_split(run.path)
    (run.path / "latest.pt").unlink()
    assert score_test_split(run.path) == loss


def test_a_test_loss_that_is_not_finite_is_named_and_scored_once(tiny_run, monkeypatch, capsys):
    run = tiny_run()
    train(run)

    def diverged(*_):
        return np.full(len(open_test(run.corpus)) - 1, np.nan)

    with monkeypatch.context() as patch:
        patch.setattr(scoring, "token_losses", diverged)
        assert _report_done(run, run.path / "train.html", test=True) == DONE
    assert capsys.readouterr().out.endswith(": test_loss not finite\n")
    assert runs.read_summary(run)["final_test_loss"] is None
    (run.path / "latest.pt").unlink()
    assert math.isnan(score_test_split(run))
    assert Job(run.config.id, run.seed, run.path, max_steps=24, devices=1, test=True).done


def test_without_the_last_weights_nothing_is_scored(tiny_run):
    run = tiny_run()
    train(run)
    shutil.copy(run.path / "latest.prev.pt", run.path / "latest.pt")
    assert checkpoint.load(run.path / "latest.pt")["step"] == 20
    with pytest.raises(UserError, match=r"no checkpoint of the last step, 24; train the run again"):
        score_test_split(run)
    assert runs.read_summary(run)["final_test_loss"] is None


def test_a_run_that_is_not_done_is_not_scored(tiny_run):
    with pytest.raises(UserError, match="is not done, so it is not scored on the test split"):
        score_test_split(tiny_run())


def test_torn_documents_are_reported_and_the_run_stays_unscored(tiny_run):
    run = tiny_run()
    train(run)
    path = run.path / "documents.npz"
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(UserError, match=r"documents\.npz: is damaged; delete it and summary\.json"):
        score_test_split(run)
    assert runs.read_summary(run)["final_test_loss"] is None
    assert not run.lock.held
    for name in ("documents.npz", "summary.json"):  # as the message says
        (run.path / name).unlink()
    before = (run.path / "metrics.jsonl").read_bytes()
    train(tiny_run())
    assert (run.path / "metrics.jsonl").read_bytes() == before
    assert score_test_split(run) > 0
