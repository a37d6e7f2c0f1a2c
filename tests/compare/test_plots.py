import numpy as np
import pytest
from nbconvert import HTMLExporter
from nbformat.v4 import new_code_cell, new_notebook, new_output

from oelm_lib import arms
from oelm_lib.compare import plots
from oelm_lib.config import load_config
from oelm_lib.view import figure, series
from tests import runs_factory


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    return runs_factory.make_demo(tmp_path_factory.mktemp("outputs"), seeds=(42, 43))


def names(figure):
    return [trace.name for trace in figure.data if trace.visible and trace.showlegend is not False]


def test_one_legend_entry_per_arm_or_seed(demo):
    assert names(plots.loss_curves(demo)) == [
        f"{arm} (mean of 2)"
        for arm in ("baseline", "OELM-Freeze", "OELM-Random", "frozen Gaussian")
    ]
    assert names(plots.loss_curves(demo[2:4], group="seed")) == [
        "OELM-Freeze · seed 42",
        "OELM-Freeze · seed 43",
    ]
    assert names(plots.loss_curves(demo[2])) == ["OELM-Freeze · seed 42"]


def test_validation_mean_is_the_mean_of_the_runs(demo):
    figure = plots.loss_curves(demo[:2])
    mean = next(
        t
        for t in figure.data
        if t.meta["kind"] == "eval" and t.meta["stat"] == "mean" and t.visible
    )
    rows = [series.run_series(run)["eval"]["loss"] for run in demo[:2]]
    np.testing.assert_allclose(mean.y, np.mean(rows, axis=0), rtol=1e-6)


def test_shows_the_mimetype_to_jupyter_and_a_line_to_nbconvert(demo):
    bundle = plots.loss_curves(demo[0])._repr_mimebundle_()
    assert bundle[figure.MIMETYPE]["config"] == figure.CONFIG
    cell = new_code_cell("figure", outputs=[new_output("display_data", data=bundle)])
    page, _ = HTMLExporter(template_name="basic").from_notebook_node(new_notebook(cells=[cell]))
    assert "oelm report X.ipynb" in page


def test_runs_without_rows_are_named_with_their_reason(demo, tmp_path):
    bad = [
        runs_factory.break_run(runs_factory.make_run(tmp_path, seed=n), how)
        for n, how in ((1, "empty"), (2, "newer"))
    ]
    subtitle = plots.loss_curves([demo[0], *bad]).layout.title.subtitle.text
    assert "DEMO-01_baseline/seed1: no config.yaml" in subtitle and "seed2" in subtitle
    assert plots.loss_curves(bad).layout.annotations[0].text == "Nothing to draw yet."


def test_thinning_keeps_a_spike_of_one_row(tmp_path):
    run = runs_factory.make_run(
        tmp_path, overrides={"train.max_steps": 60_000}, spike=(30_000, 25.0)
    )
    rows = series.run_series(run)["train"]
    assert len(rows["step"]) <= series.BUCKETS
    assert max(rows["loss_high"]) == 25.0
    raw = next(t for t in plots.loss_curves(run).data if t.meta["stat"] == "envelope")
    assert max(raw.y) == 25.0


def test_ema_is_the_weighted_mean_it_says():
    step, values = np.array([10.0, 20.0, 40.0, 1000.0]), np.array([3.0, 2.0, np.nan, 1.0])
    out = series.ema(step, values, 0.9)
    assert out[0] == 3.0 and np.isnan(out[2])
    assert out[1] == pytest.approx((3.0 * 0.9**10 + 2.0) / (0.9**10 + 1))
    assert out[3] == pytest.approx(
        (3.0 * 0.9**990 + 2.0 * 0.9**980 + 1.0) / (0.9**990 + 0.9**980 + 1)
    )
    np.testing.assert_array_equal(series.ema(step, values, 0.0), values)


def test_arm_names_follow_the_log():
    expected = {
        "GPT-01": "baseline",
        "GPT-05": "OELM-Freeze",
        "GPT-03": "OELM-Random",
        "DEMO-04": "frozen Gaussian",
    }
    assert {exp: arms.arm_name(load_config(exp).to_dict()) for exp in expected} == expected
    cfg = load_config("GPT-02", {"model.freeze_k": False})
    assert arms.arm_name(cfg.to_dict(), cfg.overrides) == "OELM-Freeze, freeze_k=False"


def test_every_arm_has_one_colour_whatever_it_stands_beside():
    assert (
        arms.arm_colours(["OELM-Freeze", "x"])["OELM-Freeze"]
        == arms.arm_colours(["OELM-Freeze"])["OELM-Freeze"]
    )
    found = arms.arm_colours(["baseline", "a", "b", "c"])
    assert len(set(found.values())) == len(found)
