"""The exported page, driven in Chromium with the network off."""

import csv
import itertools
import json
import shutil

import nbformat
import numpy as np
import plotly.graph_objects as go
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from oelm_lib import compare, view
from oelm_lib.report import keep
from oelm_lib.report.make import report
from oelm_lib.report.page import export
from oelm_lib.view import figure, series
from oelm_lib.view.selection import select
from tests import runs_factory
from tests.browser import open_page, wait

pytestmark = pytest.mark.slow
SHOWN = """n => {
  const plot = document.querySelectorAll('.js-plotly-plot')[n];
  return {traces: plot.data.map(({name, meta, visible, x, y}) => ({name, meta, visible, x, y})),
          xaxis: plot.layout.xaxis, yaxis: plot.layout.yaxis, ink: plot.layout.font.color,
          width: plot._fullLayout.width};
}"""
LOSS, GAP, PERPLEXITY, RATE, INTERVALS, MAPS = range(6)
COUNT_LINES = "place => place.querySelectorAll('.js-line').length"
NOTES = ["words " * 19 + "end", "a second note"]


@pytest.fixture(scope="module")
def page_path(tmp_path_factory):
    folder = tmp_path_factory.mktemp("page")
    for exp, seed in itertools.product(("DEMO-01", "DEMO-02"), (42, 43)):
        # 1,200 train rows, so that the page holds buckets; one row off the scale.
        changes = {"train.max_steps": 12_000, "train.eval_interval": 1000}
        runs_factory.make_run(folder / "outputs", exp, seed, overrides=changes, spike=(5000, 25.0))
    runs_factory.make_run(folder / "outputs", "DEMO-03", 42, state="running", done=0.5)
    runs = compare.load_runs(None, folder / "outputs")
    makers = (
        view.loss_curves,
        compare.gap_curves,
        lambda runs: compare.gap_intervals(compare.judge(runs)),
        view.rate_and_gradient,
    )
    cells = [new_markdown_cell("# Page\n\n## Curves")]
    for make in makers:
        made = make(runs)
        if make is view.rate_and_gradient:
            made.layout.title.subtitle.text = "<br>".join(NOTES).replace(
                "words w", "words <br>w", 1
            )
        output = new_output("display_data", data=made._repr_mimebundle_())
        cells.append(new_code_cell("", execution_count=1, outputs=[output]))
    bar = {"array": np.array([0.5]), "arrayminus": np.array([0.25]), "symmetric": False}
    intervals = figure.Figure(
        [
            go.Scatter(x=np.array([1]), y=[2], error_y=bar, name="arm"),
            go.Box(x=np.array([3, 4]), name="times"),
        ]
    )
    maps = figure.Figure(
        [
            go.Heatmap(z=[[0.5, None]], text=[["head 0<br>'a' to &lt;b", ""]], name="arm"),
            go.Heatmap(z=np.array([[1.0, np.nan], [3.0, 4.0]])),
        ]
    )
    for made in (intervals, maps):
        output = new_output("display_data", data=made._repr_mimebundle_())
        cells.append(new_code_cell("", execution_count=1, outputs=[output]))
    nbformat.write(new_notebook(cells=cells), folder / "page.ipynb")
    return export(folder / "page.ipynb")


@pytest.fixture(scope="module")
def shared_page(browser, page_path):
    """The page for tests that change nothing on it."""
    page = open_page(browser, page_path)
    yield page
    page.close()


def numbers(values):
    return np.array([np.nan if value is None else value for value in values], dtype=float)


def assert_as_python(page, n, chosen, **state):
    """The traces in the page are those that Python computes from the same rows."""
    rows = dict(zip(chosen["run"], chosen["series"], strict=True))
    state = series.STATE | state
    compared = 0
    for trace in page.evaluate(SHOWN, n)["traces"]:
        assert bool(trace["visible"]) == (trace["meta"]["group"] == state["group"])
        x, y = series.trace_values(trace["meta"], rows, state)
        np.testing.assert_allclose(numbers(trace["x"]), x, rtol=1e-9)
        np.testing.assert_allclose(numbers(trace["y"]), y, rtol=1e-9, atol=1e-9)
        compared += np.isfinite(y).sum()
    assert compared >= 50


def test_draws_everything_without_a_request(page, page_path):
    assert page.problems == [page_path.as_uri()]
    assert page.locator(".js-plotly-plot").count() == 6
    assert page.locator(".js-plotly-plot .main-svg").count() >= 8
    assert page.locator("[data-title*=Cloud], [data-title*=Share]").count() == 0


def test_each_note_of_a_figure_is_a_line_of_its_own(shared_page):
    caption = shared_page.locator(".figure").nth(RATE).locator(".caption p")
    assert caption.evaluate("box => box.textContent").split("\n") == NOTES


def test_controls_compute_what_python_computes(page, page_path):
    chosen, _ = select(compare.load_runs(None, page_path.parent / "outputs"))
    loss, gap = page.locator(".figure").nth(LOSS), page.locator(".figure").nth(GAP)
    for x, y, group in itertools.product(
        ("step", "tokens", "hours", "epochs"), ("loss", "perplexity"), ("arm", "seed")
    ):
        for name, value in (("x", x), ("y", y), ("group", group)):
            loss.locator(f"[name={name}]").select_option(value)
        assert_as_python(page, LOSS, chosen, x=x, y=y, group=group)
    axes = page.evaluate(SHOWN, LOSS)
    assert (axes["xaxis"]["title"]["text"], axes["yaxis"]["title"]["text"]) == (
        "epochs",
        "perplexity",
    )
    for smoothing in (0, 0.5, 0.99):
        loss.locator("[name=smoothing]").fill(str(smoothing))
        assert_as_python(
            page, LOSS, chosen, x="epochs", y="perplexity", group="seed", smoothing=smoothing
        )
    for x, group in itertools.product(("hours", "tokens"), ("arm", "seed")):
        gap.locator("[name=x]").select_option(x)
        gap.locator("[name=group]").select_option(group)
        assert_as_python(page, GAP, chosen, x=x, group=group)
    loss.locator("[name=log]").check()
    assert page.evaluate(SHOWN, LOSS)["yaxis"]["type"] == "log"
    loss.locator("[name=log]").uncheck()
    assert page.evaluate(SHOWN, LOSS)["yaxis"]["type"] == "linear"


def test_a_spike_stays_visible(page):
    page.locator(".figure").nth(LOSS).locator("[name=group]").select_option("seed")
    raw = [
        trace
        for trace in page.evaluate(SHOWN, LOSS)["traces"]
        if trace["meta"]["stat"] == "envelope"
    ]
    assert [max(trace["y"]) for trace in raw[:4]] == [25.0] * 4


def test_a_hidden_line_stays_hidden_and_out_of_the_csv(page):
    plot = page.locator(".figure").nth(GAP)
    plot.locator("[name=group]").select_option("seed")
    plot.locator(".legendtoggle").first.click()
    wait(
        page,
        "document.querySelectorAll('.js-plotly-plot')[1]"
        ".data.some(t => t.visible === 'legendonly')",
    )
    plot.locator("[name=x]").select_option("tokens")
    traces = page.evaluate(SHOWN, GAP)["traces"]
    hidden = [trace["name"] for trace in traces if trace["visible"] == "legendonly"]
    shown = {trace["name"]: trace for trace in traces if trace["visible"] is True}
    assert hidden == ["OELM-Freeze · seed 42"]
    with page.expect_download() as download:
        plot.get_by_role("button", name="CSV").click()
    with open(download.value.path(), newline="") as file:
        rows = list(csv.DictReader(file))
    assert {row["trace"] for row in rows} == set(shown)
    trace = shown["OELM-Freeze · seed 43"]
    pairs = [(float(row["x"]), float(row["y"])) for row in rows if row["trace"] == trace["name"]]
    np.testing.assert_allclose(pairs, np.column_stack([trace["x"], trace["y"]]))


def test_intervals_and_boxes_come_into_the_csv(shared_page):
    with shared_page.expect_download() as download:
        shared_page.locator(".figure").nth(INTERVALS).get_by_role("button", name="CSV").click()
    with open(download.value.path(), newline="") as file:
        rows = [tuple(row.values()) for row in csv.DictReader(file)]
    assert rows == [
        ("arm", "scatter", "1", "2", "0.25", "0.5"),
        *(("times", "box", x, "", "", "") for x in "34"),
    ]


def test_cells_of_a_heatmap_come_into_the_csv(shared_page):
    with shared_page.expect_download() as download:
        shared_page.locator(".figure").nth(MAPS).get_by_role("button", name="CSV").click()
    with open(download.value.path(), newline="") as file:
        rows = [tuple(row.values())[:4] for row in csv.DictReader(file)]
    assert rows == [
        ("arm", "heatmap", "head 0, 'a' to <b", "0.5"),
        *(("", "heatmap", *cell) for cell in (("0, 0", "1"), ("1, 0", "3"), ("1, 1", "4"))),
    ]


def test_a_picture_has_the_axes_that_were_chosen_and_no_hidden_line(page):
    plot = page.locator(".figure").nth(LOSS)
    for name, value in (("x", "tokens"), ("y", "perplexity"), ("group", "seed")):
        plot.locator(f"[name={name}]").select_option(value)
    plot.locator("[name=log]").check()
    plot.locator(".legendtoggle").first.click()
    wait(
        page,
        "document.querySelectorAll('.js-plotly-plot')[0]"
        ".data.some(t => t.visible === 'legendonly')",
    )
    with page.expect_download() as download:
        plot.get_by_role("button", name="SVG").click()
    svg = download.value.path().read_text()
    assert ">tokens seen<" in svg and ">perplexity<" in svg
    assert ">loss (nats per token)<" not in svg and ">step<" not in svg
    on_page = page.evaluate(f"({COUNT_LINES})(document.querySelectorAll('.js-plotly-plot')[0])")
    document = f"new DOMParser().parseFromString({json.dumps(svg)}, 'image/svg+xml')"
    assert page.evaluate(f"({COUNT_LINES})({document})") == on_page > 0


@pytest.mark.parametrize(("button", "start"), [("PNG", b"\x89PNG"), ("SVG", b"<svg")])
def test_pictures_download(shared_page, button, start):
    with shared_page.expect_download() as download:
        shared_page.locator(".figure").nth(PERPLEXITY).get_by_role("button", name=button).click()
    with open(download.value.path(), "rb") as file:
        assert file.read(4) == start
    assert download.value.suggested_filename == f"figure-3.{button.lower()}"


def test_colours_follow_the_reader_and_print_is_light(page):
    light = page.evaluate(SHOWN, LOSS)["ink"]
    page.emulate_media(color_scheme="dark")
    wait(page, f"({SHOWN})(0).ink !== '{light}'")
    dark = page.evaluate(SHOWN, LOSS)
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    printed = page.evaluate(SHOWN, LOSS)
    page.evaluate("dispatchEvent(new Event('afterprint'))")
    assert page.evaluate(SHOWN, LOSS)["ink"] == dark["ink"] != printed["ink"]
    assert printed["width"] == 670
    wait(page, f"({SHOWN})(0).width === {dark['width']}")
    page.emulate_media(color_scheme="light")
    wait(page, f"({SHOWN})(0).ink === '{printed['ink']}'")


def test_narrow_window_does_not_scroll_sideways(page):
    page.set_viewport_size({"width": 420, "height": 900})
    wait(page, f"({SHOWN})(0).width <= 420")
    assert page.evaluate("document.documentElement.scrollWidth") <= 420


def test_a_figure_can_be_shown_alone(browser, page_path):
    """As the picture of a published page shows it."""
    page = browser.new_page()
    page.goto(f"{page_path.as_uri()}#figure-2")
    wait(page, "document.documentElement.dataset.ready === 'true'")
    assert page.locator(".figure").count() == 1
    assert page.locator("body").inner_text().startswith("Gap to the baseline over training")
    assert page.locator(".controls, nav, footer").count() == 0
    page.close()


def test_published_page_has_a_picture_and_an_entry(page_path, tmp_path):
    if shutil.which("chromium") is None:
        pytest.skip("chromium is not installed")
    kept = keep.publish(page_path, tmp_path / "reports")
    assert kept.read_bytes() == page_path.read_bytes()
    picture = kept.with_suffix(".png").read_bytes()
    assert picture[:4] == b"\x89PNG" and len(picture) > 30_000
    index = (kept.parent / "index.md").read_text()
    assert (
        "## [Page](page.html)" in index
        and "DEMO-03_oelm_random/seed42" in index
        and "- code: " in index
    )


def test_report_compares_what_is_named(tmp_path, monkeypatch):
    runs_factory.make_demo(tmp_path, seeds=(42, 43))
    monkeypatch.setenv("OELM_OUTPUTS", str(tmp_path))
    target = report("DEMO-02")  # its baseline is there, though it is not named
    text = target.read_text()
    assert (
        target == tmp_path / "compare_DEMO-02.html"
        and "DEMO-02 against DEMO-01 on stories" in text
        and "DEMO-03" not in text
    )
    assert (
        text.count("data-figure=") == 6
        and "Live controls" not in text
        and "This notebook failed" not in text
    )


def test_a_comparison_with_another_baseline_has_a_page_of_its_own(tmp_path, monkeypatch):
    """The page used to replace compare.html, which judges each experiment by its own baseline."""
    runs_factory.make_demo(tmp_path, seeds=(42, 43))
    monkeypatch.setenv("OELM_OUTPUTS", str(tmp_path))
    page = report("compare", "DEMO-03")
    assert page == tmp_path / "compare_DEMO-_vs_DEMO-03.html"
    text = page.read_text()
    assert "DEMO-02 against DEMO-03 on stories" in text and "DEMO-02 against DEMO-01" not in text
    assert "oelm report compare --baseline DEMO-03" in text
