import json

import pytest

from oelm_lib import compare, stats
from oelm_lib.arms import COLOURS
from tests.runs_factory import make_run


def trace(figure, name):
    (found,) = [trace for trace in figure.data if trace.name == name]
    return found


def texts(figure):
    return [annotation.text for annotation in figure.layout.annotations]


def test_the_gap_figure_shows_the_interval_of_the_verdict(demo):
    runs = compare.load_runs(outputs=demo)
    figure = compare.gap_intervals(compare.judge(runs))
    for row in compare.verdicts(runs).to_dict("records"):
        mean = trace(figure, f"{row['arm']} ({row['id']})")
        assert mean.x[0] == pytest.approx(100 * row["gap"], abs=1e-3)
        assert mean.x[0] + mean.error_x.array[0] == pytest.approx(100 * row["high"], abs=1e-3)
        assert mean.x[0] - mean.error_x.arrayminus[0] == pytest.approx(100 * row["low"], abs=1e-3)
        assert mean.marker.color == COLOURS[row["arm"]]
        assert any(row["verdict"] in text and row["arm"] in text for text in texts(figure))


def test_the_gap_figure_shows_each_seed_paired_with_its_baseline(demo):
    runs = compare.load_runs(outputs=demo)
    losses = runs.set_index(["id", "seed"])["final_val_loss"]
    gaps = [100 * stats.gap(nats) for nats in losses["DEMO-02"] - losses["DEMO-01"]]
    figure = compare.gap_intervals(compare.judge(runs))
    seeds = trace(figure, "OELM-Freeze (DEMO-02), seeds")
    assert sorted(seeds.x) == pytest.approx(sorted(gaps), abs=1e-3)
    assert set(seeds.y) == set(trace(figure, "OELM-Freeze (DEMO-02)").y)


def test_the_limit_is_labelled_once_a_panel(demo):
    for exp in ("GPT-01", "GPT-02"):
        make_run(demo, exp, 42, train_every=10_000)
    figure = compare.gap_intervals(compare.judge(compare.load_runs(outputs=demo)))
    assert sum("limit" in text for text in texts(figure)) == 2
    assert sum("against baseline (" in text for text in texts(figure)) == 2


def test_each_baseline_has_its_panel(tmp_path):
    """GPT-09 is the plain baseline of GPT-13, which is that of the frozen arm with a T5 bias."""
    for exp in ("GPT-09", "GPT-13", "GPT-14"):
        make_run(tmp_path, exp, 42, train_every=10_000)
    runs = compare.load_runs(outputs=tmp_path)
    headings = [
        text for text in texts(compare.gap_intervals(compare.judge(runs))) if "against" in text
    ]
    assert [heading.rpartition("against ")[2] for heading in headings] == [
        "baseline (GPT-09)",
        "baseline + T5 bias (GPT-13)",
    ]
    names = {trace.name for trace in compare.gap_curves(runs).data}
    assert {name.rpartition("against ")[2].split(" ·")[0] for name in names} == {"GPT-09", "GPT-13"}


def test_an_arm_that_diverged_does_not_stretch_the_panel(demo):
    for seed in (42, 43, 44):
        make_run(demo, "DEMO-02", seed + 10, final_loss=900.0)
        make_run(demo, "DEMO-01", seed + 10, final_loss=1.3)
    figure = compare.gap_intervals(compare.judge(compare.load_runs(outputs=demo)))
    low, high = figure.layout.xaxis.range
    assert -100 <= low < 0 and high < 300


def test_gap_curves_are_relative_to_the_baseline(demo):
    figure = compare.gap_curves(compare.load_runs(outputs=demo), group="arm")
    assert "limit +5 %" in texts(figure)
    assert "band: lowest to highest seed" in figure.layout.title.subtitle.text.replace(" <br>", " ")
    shown = [trace.name for trace in figure.data if trace.visible and trace.showlegend is not False]
    assert shown[0] == "OELM-Freeze (mean of 3)"
    freeze = next(trace for trace in figure.data if trace.name == shown[0] and trace.visible)
    assert freeze.y[-1] == pytest.approx(100 * stats.gap(0.15), abs=3)


def test_tokens_to_reach_falls_with_the_loss(demo):
    figure = compare.tokens_to_reach(compare.load_runs(outputs=demo))
    assert figure.data and all(len(line.x) > 0 for line in figure.data)
    for line in figure.data:
        assert list(line.x) == sorted(line.x, reverse=True)
        assert list(line.y) == sorted(line.y)


def test_nothing_to_draw_is_said(tmp_path):
    runs = compare.load_runs(outputs=tmp_path)
    for figure in (compare.gap_intervals(compare.judge(runs)), compare.gap_curves(runs)):
        assert "Nothing to draw yet." in json.dumps(texts(figure))


def test_only_a_run_of_an_arm_lacks_a_baseline(demo):
    make_run(demo, "DEMO-01", 50)
    make_run(demo, "DEMO-02", 51)
    subtitle = compare.gap_curves(compare.load_runs(outputs=demo)).layout.title.subtitle.text
    assert "DEMO-02_oelm_freeze/seed51: no baseline with its" in subtitle
    assert "DEMO-01" not in subtitle
