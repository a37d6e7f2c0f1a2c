"""The frame of all figures: what a notebook shows and what a page makes of it again."""

import copy
import json
import re

import pytest

from oelm_lib import compare, view
from oelm_lib.markup import plain_text
from oelm_lib.view import figure
from tests import runs_factory


@pytest.fixture(scope="module")
def figures(tmp_path_factory):
    """Figures with one panel, with several, of bars, and without a legend."""
    outputs = tmp_path_factory.mktemp("outputs")
    runs_factory.make_demo(outputs, seeds=(42, 43))
    runs = compare.load_runs(outputs=outputs)
    return [
        view.loss_curves(runs),
        compare.gap_curves(runs),
        compare.tokens_to_reach(runs),
        view.rate_and_gradient(runs),
        view.time_budget(runs),
        compare.gap_intervals(compare.judge(runs)),
    ]


def plain(one):
    """Return a figure as a notebook stores it, without its config."""
    shown = json.loads(json.dumps(one.outputs()[0]["data"][figure.MIMETYPE]))
    return {key: shown[key] for key in ("data", "layout")}


def test_a_notebook_has_one_legend_below_the_panels(figures):
    for one in figures[:-1]:
        shown = plain(one)
        entries = [trace["name"] for trace in shown["data"] if trace["showlegend"]]
        assert entries and len(entries) == len(set(entries))
        assert {trace["legend"] for trace in shown["data"]} == {"legend"}
        assert shown["layout"]["legend"]["yref"] == "container"
        assert shown["layout"]["legend"]["orientation"] == "h"
        assert shown["layout"]["margin"]["b"] > max(one.layout.margin.b, 60)  # room for it
        assert shown["layout"]["height"] > one.layout.height


def test_a_page_gets_the_legends_beside_the_panels_again(figures):
    for one in figures:
        before = json.loads(one.to_json())
        again = figure.legend_beside(plain(one))
        assert json.loads(one.to_json()) == before  # the figure itself stays
        for shown in (before, again):
            shown["layout"].setdefault("meta", {})
        assert again == before


@pytest.mark.parametrize("meta", ["words", None, {"beside": "words"}, {"beside": {"traces": [1]}}])
def test_a_figure_from_elsewhere_stays_as_it_is(meta):
    plain = {"data": [{"type": "scatter"}], "layout": {"meta": meta}}
    assert figure.legend_beside(copy.deepcopy(plain)) == plain


def test_a_long_title_has_lines_that_fit_a_narrow_window():
    words = "Gap to the baseline by trained share of the Q/K weights"
    long = figure.new_figure(words, [], ["panel"])
    assert plain_text(long.layout.title.text) == words
    lines = re.split("<br>", long.layout.title.text)
    assert len(lines) == 2 and max(len(plain_text(line)) for line in lines) <= figure.TITLE_LINE
    short = figure.new_figure("Loss", [], ["panel"])
    assert long.layout.margin.t > short.layout.margin.t > figure.BUTTONS


def test_a_text_of_a_figure_is_shown_as_it_is():
    """Plotly does not read `&quot;`, and reads tags: names of panels had theirs."""
    words, shown = "the \"a\" <b> & 'c'", "the \"a\" &lt;b&gt; &amp; 'c'"
    layout = figure.new_figure(words, [words], [words, words]).layout
    assert [note.text for note in layout.annotations] == [shown, shown]
    assert layout.title.text == f"<b>{shown}</b>" and layout.title.subtitle.text == shown
