"""The forest plot of a study: what it draws of the first table."""

import math

import pytest
from test_page import COMPLETE, make_study
from test_verdicts import BASE, make_grid, with_gap

from oelm_lib.study import plots


def test_the_axis_of_the_gap_holds_0_and_the_limits():
    """The axis used to begin at 16 % for a single gap of 19 %."""
    figure = plots.gaps(make_study(make_grid(COMPLETE)))
    low, high = figure.layout.xaxis.range
    assert low < -1 < 0 < 5 < 100 * math.expm1(0.2) < high
    texts = [note.text for note in figure.layout.annotations]
    assert texts[-3:] == ["baseline", "+1 %", "+5 %"]


def test_the_figure_has_the_comparisons_and_verdicts_of_the_first_table():
    study = make_study(make_grid(COMPLETE))
    figure = plots.gaps(study)
    texts = [note.text for note in figure.layout.annotations]
    assert texts[:4] == [
        "<b>frozen</b> (0 %)<br>against trained",
        "≤ 5 % ✗, ≤ 1 % ✗",
        "<b>frozen</b> (0 %)<br>against twin",
        "equal within ±1 % ✓",
    ]
    assert list(figure.layout.yaxis.ticktext) == ["stories", "stories"]
    lines = {shape.x0 for shape in figure.layout.shapes if shape.x0}
    assert lines == {1.0, 5.0, -1.0}


def test_a_claim_that_lacks_seeds_is_drawn_with_their_number():
    study = make_study(make_grid({"trained": BASE, "frozen": with_gap(0.2)[:3]}))
    texts = [note.text for note in plots.gaps(study).layout.annotations]
    assert "3 of 4 seeds" in texts


def test_notes_and_names_of_limits_keep_apart_where_a_bar_leaves_the_panel():
    """A study of four seeds: its note was struck through, and +1 % lay under +5 %."""
    far = [BASE[0] + 2, *BASE[1:]]
    figure = plots.gaps(make_study(make_grid({"trained": BASE, "frozen": far})))
    notes = {note.text: note for note in figure.layout.annotations}
    assert notes["≤ 5 % ?, ≤ 1 % ?"].yshift > 0
    assert "+1 %, +5 %" in notes and "+5 %" not in notes


def test_a_wide_interval_is_drawn_whole():
    wide = [BASE[0] + 0.1, *with_gap(0.15)[1:3], BASE[3] + 0.2]
    figure = plots.gaps(make_study(make_grid({"trained": BASE, "frozen": wide})))
    (frozen,) = figure.data
    low, high = figure.layout.xaxis.range
    assert low < frozen.x[0] - frozen.error_x.arrayminus[0]
    assert high > frozen.x[0] + frozen.error_x.array[0]


def test_the_figure_shows_the_interval_of_the_verdict():
    """The figure above the verdicts used to show unpaired, unadjusted intervals."""
    study = make_study(make_grid(COMPLETE))
    interval = study.judgements[0].interval
    trace = plots.gaps(study).data[0]
    assert trace.name == "frozen against trained, stories"
    assert trace.x[0] == pytest.approx(100 * interval.gap, abs=1e-3)
    up, down = interval.gap_high - interval.gap, interval.gap - interval.gap_low
    assert trace.error_x.array[0] == pytest.approx(100 * up, abs=1e-3)
    assert trace.error_x.arrayminus[0] == pytest.approx(100 * down, abs=1e-3)
