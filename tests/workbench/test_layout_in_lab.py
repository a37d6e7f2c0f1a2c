"""The workbench beside the file browser, 1280 and 800 pixels wide: nothing is cut off."""

import pytest

from tests import runs_factory
from tests.lab import choose, make_checkout, open_lab, run_all

OVERFLOWING = """() => [...document.querySelectorAll('.oelm-panel, .oelm-panel .jupyter-widgets')]
    .filter(part => part.scrollWidth > part.clientWidth + 1)
    .map(part => `${part.className}: ${part.scrollWidth} in ${part.clientWidth}`)"""
"""Widgets with a scroll bar of their own, which only the tables have."""
FITTING = """width => [...document.querySelectorAll('.jp-Notebook, .oelm-panel .main-svg')]
    .every(part => part.getBoundingClientRect().right <= width)"""
COLOUR = "span => getComputedStyle(span).color"


def right(locator):
    """Return the right edge of an element in pixels of the window."""
    box = locator.bounding_box()
    return box["x"] + box["width"]


def resize(page, width):
    """Make the window narrower and wait until the notebook and its figures are too."""
    page.set_viewport_size({"width": width, "height": 6000})
    page.wait_for_function(FITTING, arg=width)


@pytest.fixture
def page(tmp_path):
    """The workbench with a run in progress beside its baseline."""
    checkout = make_checkout(tmp_path, {})
    outputs = checkout / "outputs"
    runs_factory.make_run(outputs, "DEMO-01")
    runs_factory.make_run(outputs, "DEMO-02", state="running", done=0.5)
    with open_lab(checkout, OELM_DATA=str(tmp_path), OELM_OUTPUTS=str(outputs)) as lab:
        page = lab.open("workbench", height=6000)
        run_all(page)
        choose(page, "experiment", "DEMO-02")
        page.locator(".oelm-panel .js-plotly-plot .nsewdrag").first.wait_for()
        yield page


@pytest.mark.slow
def test_tables_form_and_figures_fit_and_a_dark_theme_has_lighter_words(page):
    assert page.locator("#filebrowser").is_visible()
    resize(page, 1280)
    assert page.evaluate(OVERFLOWING) == []
    tables = page.locator(".wb-scroll")
    assert tables.count() == 2
    for table in tables.all():
        assert right(table.locator("th", has_text="ETA")) <= right(table)

    resize(page, 800)
    assert page.evaluate(OVERFLOWING) == []
    table, name = tables.first, tables.first.locator("td").first
    place = name.bounding_box()
    table.evaluate("table => table.scrollTo(200, 0)")
    assert table.evaluate("table => table.scrollLeft") == 200
    assert name.bounding_box() == place
    hint = page.get_by_text("H, attention heads in a layer; must divide d_model")
    assert hint.bounding_box()["width"] > 200 and right(hint) < 800
    plot = page.locator(".oelm-panel .js-plotly-plot .nsewdrag").first
    assert plot.bounding_box()["width"] > 200

    done = page.locator("b[style*='--good']").first
    light = done.evaluate(COLOUR)
    page.evaluate("document.body.dataset.jpThemeLight = 'false'")
    assert done.evaluate(COLOUR) == "rgb(79, 199, 154)" != light
