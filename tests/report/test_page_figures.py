"""Figures of the exported page that a user made, that change their width, or that are saved."""

import csv
import itertools
import re

import nbformat
import plotly.graph_objects as go
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output
from plotly.offline import get_plotlyjs

from oelm_lib import compare, view
from oelm_lib.report.page import export
from oelm_lib.view.figure import MIMETYPE, Figure, add_trace, new_figure
from tests import runs_factory
from tests.browser import wait
from tests.report.test_controls import SHOWN

pytestmark = pytest.mark.slow
CLEAR = {"paper_bgcolor": "rgba(0,0,0,0)"}
LOSS, TRANSPARENT, BROKEN, RATE, OWN_META, SMALL = range(6)
NAME = "OELM-Random, with a small start"
FORM = """n => {
    const layout = document.querySelectorAll('.js-plotly-plot')[n]._fullLayout;
    return [layout.width, layout.height, layout.margin.b];
}"""


def cell(figures, **metadata):
    outputs = [new_output("display_data", data=one._repr_mimebundle_()) for one in figures]
    return new_code_cell("", execution_count=1, outputs=outputs, metadata=metadata)


def small_figure(lines):
    figure = new_figure("Small", ["a note"], [""], 60)
    add_trace(figure, 1, go.Scatter(x=[1], y=[NAME], name=NAME, mode="markers"))
    return figure.update_yaxes(tickvals=[NAME], ticktext=lines) if lines else figure


@pytest.fixture(scope="module")
def page_path(tmp_path_factory):
    folder = tmp_path_factory.mktemp("page")
    runs_factory.make_demo(folder / "outputs", seeds=(42, 43))
    runs = compare.load_runs(outputs=folder / "outputs")
    figures = [
        view.loss_curves(runs),
        Figure(go.Scatter(x=[1, 2], y=[3, 4]), layout=CLEAR),
        Figure(go.Scatter(x=[1, 2], y=[3, 4]), layout={"meta": {"controls": 3}}),
        view.rate_and_gradient(runs),
        Figure(go.Scatter(x=[1, 2], y=[3, 4], meta={"runs": 3}), layout=CLEAR | {"margin_t": 30}),
    ]
    cells = [new_markdown_cell("# Page"), *(cell([one]) for one in figures)]
    small = [small_figure(None), small_figure(["OELM-Random, with<br>a small start"])]
    notebook = new_notebook(cells=[*cells, cell(small, tags=["grid"])])
    nbformat.write(notebook, folder / "page.ipynb")
    return export(folder / "page.ipynb")


def save_svg(page, n):
    with page.expect_download() as download:
        page.locator(".figure").nth(n).get_by_role("button", name="SVG").click()
    return download.value.path().read_text()


def test_a_figure_that_cannot_be_drawn_leaves_the_others(page, page_path):
    """One that a user had made transparent took all figures off the page."""
    assert page.problems == [page_path.as_uri()]
    figures = page.locator(".figure")
    assert figures.count() == 7 and page.locator(".js-plotly-plot").count() == 6
    assert "This figure cannot be drawn" in figures.nth(BROKEN).inner_text()
    for n in (TRANSPARENT, OWN_META):
        assert figures.nth(n).locator(".js-line").count() == 1
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    page.evaluate("dispatchEvent(new Event('afterprint'))")
    assert page.locator(".js-plotly-plot .main-svg").count() >= 8


def test_a_narrow_figure_is_laid_out_again_as_its_window_shrinks(page):
    """Rows of the legend, counted for the first narrow width, covered the curves."""
    page.locator(".figure").nth(LOSS).locator("[name=group]").select_option("seed")
    forms = []
    for widths in ((660, 420), (1000, 420)):
        for width in widths:
            page.set_viewport_size({"width": width, "height": 900})
            wait(page, f"({FORM})(0)[0] <= {width} && ({FORM})(0)[0] > {width - 60}")
        page.wait_for_timeout(500)
        forms.append(page.evaluate(FORM, LOSS))
    assert forms[0] == forms[1]


def test_a_saved_picture_has_the_zoom_and_the_colours_of_print(page):
    page.emulate_media(color_scheme="dark")
    page.evaluate("""() => Plotly.relayout(
        document.querySelector('.js-plotly-plot'), {'xaxis.range': [700, 900]})""")
    svg = save_svg(page, LOSS)
    ticks = re.findall(r'class="xtick"><text.*?>([\d,.k]+)</text>', svg)
    steps = [float(tick.replace(",", "")) for tick in ticks]
    assert steps and 700 <= min(steps) and max(steps) <= 900
    assert "rgb(59, 64, 70)" in svg and "rgb(255, 255, 255)" in svg
    assert page.evaluate(SHOWN, LOSS)["ink"] != "#3b4046"


def save_csv(page, button):
    with page.expect_download() as download:
        button.click()
    with open(download.value.path(), newline="") as file:
        return list(csv.DictReader(file))


def test_each_number_of_the_csv_says_which_line_it_belongs_to(page):
    """The columns trace and kind were the same for a line, its band and its values as logged."""
    for n, group in itertools.product((LOSS, RATE), ("arm", "seed")):
        figure = page.locator(".figure").nth(n)
        figure.locator("[name=group]").select_option(group)
        rows = save_csv(page, figure.get_by_role("button", name="CSV"))
        places = [(row["trace"], row["kind"], row["x"]) for row in rows]
        assert len(set(places)) == len(places) > 100
        kinds = {row["kind"] for row in rows}
    assert kinds >= {"train learning_rate mean", "train grad_norm mean smoothed"}
    loss = page.locator(".figure").nth(LOSS)
    loss.locator("[name=y]").select_option("perplexity")
    rows = save_csv(page, loss.get_by_role("button", name="CSV"))
    assert "eval perplexity mean" in {row["kind"] for row in rows}


def test_jupyterlab_saves_the_same_csv_as_the_page(browser, page, page_path):
    expected = save_csv(page, page.locator(".figure").nth(RATE).get_by_role("button", name="CSV"))
    runs = compare.load_runs(outputs=page_path.parent / "outputs")
    drawn, buttons = view.rate_and_gradient(runs).outputs()
    lab = browser.new_page()
    output = "<div class='jp-OutputArea-child'>{}</div>"
    lab.set_content(
        "<!doctype html>"
        + output.format("<div class='plot'></div>")
        + output.format(buttons["data"]["text/html"])
    )
    lab.add_script_tag(content=get_plotlyjs())
    figure = drawn["data"][MIMETYPE]
    lab.evaluate("figure => Plotly.newPlot(document.querySelector('.plot'), figure)", figure)
    rows = save_csv(lab, lab.locator("[data-format=csv]"))
    places = [[(row["trace"], row["kind"], row["x"]) for row in some] for some in (rows, expected)]
    assert places[0] == places[1]
    lab.close()


def test_small_figures_fit_a_small_phone_and_stand_below_each_other_in_print(page):
    page.set_viewport_size({"width": 320, "height": 900})
    wait(page, f"({FORM})(0)[0] <= 320")
    assert page.evaluate("document.documentElement.scrollWidth") <= 320
    page.set_viewport_size({"width": 673, "height": 900})  # A4 less its margins
    page.emulate_media(media="print")
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    plots = page.locator(".celltag_grid .js-plotly-plot")
    first, second = (plots.nth(n).bounding_box() for n in (0, 1))
    assert first["y"] + first["height"] <= second["y"]
    assert page.evaluate("document.documentElement.scrollWidth") <= 673


def test_names_of_rows_keep_the_lines_that_the_notebook_gave_them(page):
    """The page's own rule found one place in this name, and made lines of another length."""
    ticks = page.evaluate(
        """() => [...document.querySelectorAll('.celltag_grid .js-plotly-plot')]
            .map(plot => plot._fullLayout.yaxis.ticktext)"""
    )
    assert ticks == [
        ["OELM-Random, <br>with a small start"],
        ["OELM-Random, with<br>a small start"],
    ]


def test_a_figure_is_named_by_its_caption(page):
    assert page.get_by_role("figure", name="Loss").count() == 1
