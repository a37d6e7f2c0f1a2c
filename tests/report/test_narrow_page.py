"""The train page and the explore page on narrow and wide screens, measured in Chromium."""

import json

import pytest

from oelm_lib.config import as_text
from oelm_lib.report.notebook import execute
from oelm_lib.report.page import export
from tests.browser import open_browser
from tests.conftest import TINY_RUN

pytestmark = pytest.mark.slow
SMALLEST_FIGURE = 300
MEASURE = """() => {
  const shown = box => { const r = box.getBoundingClientRect(); return r.width && r.height; };
  const texts = [...document.querySelectorAll("h1, h2, h3, p, li, dd, summary, .caption, td, th")];
  const plots = [...document.querySelectorAll(".js-plotly-plot")];
  const labels = plots.flatMap(plot => [...plot.querySelectorAll("text")]
    .filter(text => text.textContent.trim() && shown(text))
    .map(text => [text.textContent, text.getBoundingClientRect(), plot.getBoundingClientRect()]));
  return {
    overflow: document.documentElement.scrollWidth - document.documentElement.clientWidth,
    figures: plots.map(plot => plot.getBoundingClientRect().width),
    clipped: texts.filter(box => shown(box) && (box.scrollWidth > box.clientWidth + 1
      && getComputedStyle(box).overflowX !== "visible" || box.getBoundingClientRect().right
      > document.documentElement.clientWidth + 1)).map(box => box.textContent.trim().slice(0, 60)),
    labels: labels.filter(([, text, plot]) => text.left < plot.left - 1
      || text.right > plot.right + 1).map(([text]) => text),
  };
}"""


@pytest.fixture(scope="module")
def pages(tmp_path_factory, stories):
    """Pages of a trained run and of the probes of two runs, by the name of their notebook."""
    folder = tmp_path_factory.mktemp("pages")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OELM_DATA", str(stories))
        patch.setenv("OELM_OUTPUTS", str(folder / "outputs"))
        overrides = as_text(TINY_RUN | {"model.max_seq_len": 64})
        for exp in ("DEMO-01", "DEMO-02"):
            parameters = {"exp": exp, "seed": 42, "overrides": overrides, "fresh": False}
            execute("train", folder / f"{exp}.ipynb", parameters)
        runs = " ".join(sorted(str(path) for path in (folder / "outputs").glob("*/seed42")))
        prompt = "The owl saw a cat. The cat saw the owl."
        execute("explore", folder / "explore.ipynb", {"runs": runs, "prompt": prompt})
    return {"train": export(folder / "DEMO-02.ipynb"), "explore": export(folder / "explore.ipynb")}


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [420, 800, 1280])
@pytest.mark.parametrize("name", ["train", "explore"])
def test_nothing_overflows_is_narrow_or_clipped(pages, tmp_path, name, width, scheme):
    size = {"width": width, "height": 900}
    with open_browser(tmp_path / "profile", viewport=size, color_scheme=scheme) as context:
        page = context.new_page()
        page.goto(pages[name].as_uri())
        page.wait_for_selector("html[data-ready=true]", state="attached")
        found = page.evaluate(MEASURE)
    assert found["overflow"] <= 0
    assert found["figures"] and min(found["figures"]) >= SMALLEST_FIGURE
    assert found["clipped"] == found["labels"] == []


def test_the_train_page_begins_with_what_was_reached(pages):
    text = pages["train"].read_text()
    assert "<title>DEMO-02 OELM-Freeze, seed 42 (rehearsal)</title>" in text
    order = [">Result</h2>", "Perplexity <b>", 'class="figure"', "the proof</h2>", "Proven"]
    order += [">Settings</h2>", "differs from the baseline in", "All ", ">Files</h2>"]
    places = [text.index(words, text.index("<nav")) for words in order]
    assert places == sorted(places)
    assert text.count('class="figure"') == 1
    assert text.index("<details><summary>Training log") > places[-1]


def test_the_executed_train_notebook_holds_one_figure(pages):
    plain = json.loads(pages["train"].with_suffix(".ipynb").read_text())
    kinds = [
        kind
        for cell in plain["cells"]
        for output in cell.get("outputs", [])
        for kind in output.get("data", {})
    ]
    assert kinds.count("application/vnd.plotly.v1+json") == 1
    assert "application/vnd.jupyter.widget-view+json" not in kinds
