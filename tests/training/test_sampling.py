import json
import re

import pytest

from oelm_lib import training
from oelm_lib.data.tokenizer import load_tokenizer
from oelm_lib.runs.reading import read_metrics
from oelm_lib.training import sampling
from tests.training.helpers import rows_of, same_tensors


def samples(run):
    """Return the step and the text of each sample in a run's log."""
    lines = re.findall(r"\[Step (\d+)\] Sample - (.*)", (run.path / "training.log").read_text())
    return [(int(step), json.loads(text)) for step, text in lines]


def test_samples_are_logged_and_change_nothing(tiny_run, monkeypatch):
    from oelm_lib.training import checkpoint

    monkeypatch.setattr(sampling, "SHARE", 0.0)
    without = tiny_run(folder="without")
    training.train(without)
    assert samples(without) == []
    monkeypatch.setattr(sampling, "SHARE", 1e9)
    run = tiny_run(folder="with")
    training.train(run)
    drawn = samples(run)
    # The first evaluation finds out what a token costs.
    assert [step for step, _ in drawn] == [12, 18, 24]
    prompt = run.corpus.tokens("val")[: sampling.PROMPT_TOKENS].tolist()
    start = load_tokenizer(run.corpus).decode(prompt)
    assert all(text.startswith(start) and len(text) > len(start) for _, text in drawn)
    last, other = (checkpoint.load(each.path / "latest.pt") for each in (run, without))
    assert same_tensors(last["model"], other["model"])
    assert last["random"]["cpu"].equal(other["random"]["cpu"])


def test_a_short_run_spends_no_more_than_its_share(tiny_run):
    run = tiny_run()
    training.train(run)
    assert samples(run) == []


@pytest.mark.parametrize(("exp", "least", "most"), [("DEMO-02", 0.8, 1.2), ("DEMO-03", 0.15, 0.26)])
def test_evaluations_record_the_spread_of_the_logits_by_layer(tiny_run, exp, least, most):
    """At the start LayerNormed inputs give 1 at row norm 1, 0.205 at the log's scale."""
    run = tiny_run(exp, train__max_steps=1, train__eval_interval=1)
    training.train(run)
    spread = next(row for row in rows_of(run) if row["event"] == "eval")["logit_std"]
    assert len(spread) == run.config.model.num_layers
    assert all(least < value < most for value in spread), spread
    assert "logit_std" not in read_metrics(run)
