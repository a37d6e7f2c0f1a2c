import html
import json
import textwrap

import numpy as np
import pytest
from nbconvert import HTMLExporter
from nbformat.v4 import new_code_cell, new_notebook, new_output

from oelm_lib.runs.frames import load_runs
from oelm_lib.view import figure, series
from oelm_lib.view.curves import loss_curves, rate_and_gradient
from oelm_lib.view.selection import select
from tests import runs_factory
from tests.broken_runs import break_run


@pytest.fixture(scope="module")
def paths(tmp_path_factory):
    return runs_factory.make_demo(tmp_path_factory.mktemp("outputs"), seeds=(42, 43))


def names(figure):
    return [trace.name for trace in figure.data if trace.visible and trace.showlegend is not False]


def test_one_legend_entry_per_arm_or_seed(paths):
    assert names(loss_curves(paths)) == [
        f"{arm} (mean of 2)"
        for arm in ("baseline", "OELM-Freeze", "OELM-Random", "frozen Gaussian")
    ]
    assert names(loss_curves(paths[2:4], group="seed")) == [
        "OELM-Freeze · seed 42",
        "OELM-Freeze · seed 43",
    ]
    assert names(loss_curves(paths[2])) == ["OELM-Freeze · seed 42"]


def test_the_note_names_every_kind_of_line(paths):
    """It named the faint lines alone, which one line per arm does not have, and no band."""
    note = loss_curves(paths).layout.title.subtitle.text.replace(" <br>", " ")
    assert "band: lowest to highest seed" in note
    assert note.endswith("faint (one line per seed): training as logged")


def test_validation_mean_is_the_mean_of_the_runs(paths):
    drawn = loss_curves(paths[:2])
    mean = next(
        trace
        for trace in drawn.data
        if trace.meta["kind"] == "eval" and trace.meta["stat"] == "mean" and trace.visible
    )
    rows = [series.run_series(run)["eval"]["loss"] for run in paths[:2]]
    np.testing.assert_allclose(mean.y, np.mean(rows, axis=0), rtol=1e-6)


def test_learning_rate_is_that_of_the_rows(paths):
    rate = rate_and_gradient(paths[0]).data[0]
    rows = series.run_series(paths[0])["train"]
    np.testing.assert_allclose(rate.y, rows["learning_rate"], rtol=1e-6)
    np.testing.assert_allclose(rate.x, rows["step"])


def test_notebooks_get_the_figure_its_save_buttons_and_a_line_for_nbconvert(paths):
    drawn, buttons = loss_curves(paths[0]).outputs()
    assert drawn["data"][figure.MIMETYPE]["config"] == figure.CONFIG
    assert not figure.CONFIG["responsive"]
    assert buttons["metadata"] == {"oelm": "live-only"}
    assert all(f"data-format='{kind}'" in buttons["data"]["text/html"] for kind in ("png", "csv"))
    cell = new_code_cell("figure", outputs=[new_output("display_data", data=drawn["data"])])
    page, _ = HTMLExporter(template_name="basic").from_notebook_node(new_notebook(cells=[cell]))
    assert "oelm report X.ipynb" in page


def test_the_line_in_place_of_a_figure_has_its_title_without_tags():
    """GitHub showed `<b>Loss</b>`, tags and all."""
    data = figure.new_figure("Loss < 3", [], ["a"])._repr_mimebundle_()
    assert data["text/plain"] == "Figure: Loss < 3"
    assert "Interactive figure: Loss &lt; 3. For" in data["text/html"]


def test_notes_are_wrapped_and_the_lines_of_one_are_told_from_the_next_note():
    notes = [
        "of each seed " * 10 + "<DEMO-05_a_long_name_that_no_line_holds_whole/seed42>",
        "short",
    ]
    subtitle = figure.new_figure("Loss", notes, ["a"]).layout.title.subtitle.text
    lines = [html.unescape(line) for line in subtitle.split("<br>")]
    assert len(lines) > 3 and max(len(line.rstrip()) for line in lines) <= figure.NOTE_LINE
    assert html.unescape(subtitle.replace(" <br>", " ")).split("<br>") == [
        textwrap.shorten(notes[0], figure.NOTE_LENGTH, placeholder="..."),
        "short",
    ]


def test_runs_without_rows_are_named_with_their_reason(paths, tmp_path):
    bad = [
        break_run(runs_factory.make_run(tmp_path, seed=n), how)
        for n, how in ((1, "empty"), (2, "newer"))
    ]
    subtitle = loss_curves([paths[0], *bad]).layout.title.subtitle.text.replace(" <br>", " ")
    assert "DEMO-01_baseline/seed1: no config.yaml" in subtitle and "seed2" in subtitle
    assert loss_curves(bad).layout.annotations[0].text == "Nothing to draw yet."


def test_thinning_keeps_a_spike_of_one_row(tmp_path):
    run = runs_factory.make_run(
        tmp_path, overrides={"train.max_steps": 60_000}, spike=(30_000, 25.0)
    )
    rows = series.run_series(run)["train"]
    assert len(rows["step"]) <= series.BUCKETS
    assert max(rows["loss_high"]) == 25.0
    raw = next(trace for trace in loss_curves(run).data if trace.meta["stat"] == "envelope")
    assert max(raw.y) == 25.0


def test_ema_is_the_weighted_mean_it_says():
    step, values = np.array([10.0, 20.0, 40.0, 1000.0]), np.array([3.0, 2.0, np.nan, 1.0])
    out = series.ema(step, values, 0.9)
    assert out[0] == 3.0 and np.isnan(out[2])
    assert out[1] == pytest.approx((3.0 * 0.9**10 + 2.0) / (0.9**10 + 1))
    weights = 0.9 ** np.array([990, 980, 0])
    assert out[3] == pytest.approx((weights @ [3.0, 2.0, 1.0]) / weights.sum())
    np.testing.assert_array_equal(series.ema(step, values, 0.0), values)


def test_an_experiment_and_its_rehearsal_share_a_colour_and_look_different(tmp_path):
    runs_factory.make_run(tmp_path, "DEMO-02")
    runs_factory.make_run(tmp_path, "DEMO-02", overrides="train.max_steps=130")
    drawn, _ = select(load_runs(outputs=tmp_path))
    experiment, rehearsal = drawn.sort_values("variant")["style"]
    assert experiment.colour == rehearsal.colour
    assert (experiment.dash, experiment.symbol) == ("solid", "square")
    assert rehearsal.dash != "solid" and rehearsal.symbol == "square-open"
    alone, _ = select(
        load_runs(outputs=tmp_path)[lambda runs: runs["variant"].str.contains("+", regex=False)]
    )
    assert alone["style"].tolist() == [rehearsal]


@pytest.mark.parametrize(
    ("lost", "words"),
    [(1, ""), (2, " and 1 later point"), (3, " and 2 later points")],
)
def test_losses_that_are_no_number_are_counted(tmp_path, lost, words):
    """For one lost row the line used to read "at step 120 and 0 later points"."""
    path = runs_factory.make_run(tmp_path)
    file = path / "metrics.jsonl"
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    train = [row for row in rows if row["event"] == "train"]
    for row in train[3 : 3 + lost]:
        row["loss"] = None
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    (problem,) = select(path)[1]
    assert problem.endswith(f": loss is not a number at step {train[3]['step']:,}{words}")
