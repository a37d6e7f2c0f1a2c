import json

import pytest

from oelm_lib import training
from oelm_lib.runs.reading import read_metrics
from oelm_lib.training import sampling


def test_samples_are_logged_and_change_nothing(tiny_run, monkeypatch):
    from oelm_lib.training import checkpoint

    monkeypatch.setattr(sampling, "SHARE", 0.0)
    without = tiny_run(folder="without")
    training.train(without)
    assert (without.path / "samples.jsonl").read_text() == ""
    monkeypatch.setattr(sampling, "SHARE", 1e9)
    run = tiny_run(folder="with")
    training.train(run)
    rows = [json.loads(line) for line in (run.path / "samples.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == [
        12,
        18,
        24,
    ]  # the first evaluation finds out what a token costs
    assert len({row["prompt"] for row in rows}) == 1
    assert all(row["text"] for row in rows)
    assert (run.path / "training.log").read_text().count("Sample - ") == 3
    last = [checkpoint.load(path / "latest.pt") for path in (run.path, without.path)]
    for name, value in last[0]["model"].items():
        assert value.equal(last[1]["model"][name]), name
    assert last[0]["random"]["cpu"].equal(last[1]["random"]["cpu"])


def test_a_short_run_spends_no_more_than_its_share(tiny_run):
    run = tiny_run()
    training.train(run)
    assert (run.path / "samples.jsonl").read_text() == ""


@pytest.mark.parametrize(("exp", "least", "most"), [("DEMO-02", 0.8, 1.2), ("DEMO-03", 0.15, 0.26)])
def test_evaluations_record_the_spread_of_the_logits_by_layer(tiny_run, exp, least, most):
    """At the start LayerNormed inputs give 1 at row norm 1, 0.205 at the log's scale."""
    run = tiny_run(exp, train__max_steps=1, train__eval_interval=1)
    training.train(run)
    rows = [json.loads(line) for line in (run.path / "metrics.jsonl").read_text().splitlines()]
    spread = next(row for row in rows if row["event"] == "eval")["logit_std"]
    assert len(spread) == run.config.model.num_layers
    assert all(least < value < most for value in spread), spread
    assert "logit_std" not in read_metrics(run)
