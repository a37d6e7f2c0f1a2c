"""Every kind of page on narrow and wide screens, light and dark, measured in Chromium."""

import json

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from oelm_lib.config import load_config, overrides_text
from oelm_lib.report.notebook import execute
from oelm_lib.report.page import export
from oelm_lib.runs import open_run
from oelm_lib.training import train
from tests.bench.test_cpu_results import result as bench_result
from tests.conftest import TINY_RUN
from tests.executed import executed, shell
from tests.runs_factory import make_demo

pytestmark = [pytest.mark.slow, pytest.mark.long]
SMALLEST_FIGURE = 300
WAIT = 120_000
"""Milliseconds for a page to draw its figures on a busy machine."""
GPU_RESULT = {
    "card": "a card with a long name, 80 GB",
    "versions": {"torch": "2.0"},
    "tests": {"summary": "96 passed", "passed": True, "seconds": 60.0},
    "bench": {
        "summary": "1 case",
        "seconds": 1.0,
        "rows": [
            {"code": "workbook", "mode": "compiled", "precision": "bf16", "position": "learned"}
            | {"arm": "OELM-Freeze", "tokens_per_s": 98765.0, "seconds": 0.04}
            | {"floor_seconds": 0.02, "share_of_peak": 0.31, "memory_bytes": 2**31}
            | {"setup_seconds": 40.0}
        ],
        "left_out": [{"code": "workbook", "reason": "out of time"}],
    },
}
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
    """A page of every kind by the name of its notebook."""
    folder = tmp_path_factory.mktemp("pages")
    (folder / "bench_study_dropout0.json").write_text(json.dumps(bench_result()))
    (folder / "gpu").mkdir()
    (folder / "gpu" / "card.json").write_text(json.dumps(GPU_RESULT))
    with pytest.MonkeyPatch.context() as patch, shell():
        patch.setenv("OELM_DATA", str(stories))
        patch.setenv("OELM_OUTPUTS", str(folder / "outputs"))
        overrides = overrides_text(TINY_RUN | {"model.max_seq_len": 64})
        cfg = load_config("DEMO-01", overrides)
        train(open_run(cfg, 42))
        parameters = {"exp": "DEMO-02", "seed": 42, "overrides": overrides, "fresh": False}
        made = {"train": folder / "train.ipynb"}
        execute("train", made["train"], parameters)
        runs = " ".join(sorted(str(path) for path in (folder / "outputs").glob("*/seed42")))
        make_demo(folder / "demo", seeds=(42, 43))
        kinds = {
            "compare": {"exps": "DEMO-*", "baseline": "", "outputs": str(folder / "demo")},
            "explore": {"runs": runs, "prompt": "The owl saw a cat. The cat saw the owl."},
            "study": {"name": "oelm"},
            "bench": {"results": str(folder)},
            "gpu": {"results": str(folder / "gpu")},
        }
        for kind, values in kinds.items():
            made[kind] = executed(kind, folder / f"{kind}.ipynb", values)
        return {kind: export(path) for kind, path in made.items()}


@pytest.mark.parametrize("width", [420, 800, 1280])
@pytest.mark.parametrize("kind", ["compare", "train", "explore", "study", "bench", "gpu"])
def test_nothing_overflows_is_narrow_or_clipped(pages, browser, kind, width):
    page = browser.new_page()
    page.set_viewport_size({"width": width, "height": 900})
    page.goto(pages[kind].as_uri())
    if kind != "gpu":  # tables only
        page.wait_for_selector("html[data-ready=true]", state="attached", timeout=WAIT)
    for scheme in ("light", "dark") if width == 420 else ("light",):  # colours change no width
        page.emulate_media(color_scheme=scheme)
        page.evaluate("document.querySelectorAll('details').forEach(one => { one.open = true; })")
        page.wait_for_timeout(200)
        found = page.evaluate(MEASURE)
        assert found["overflow"] <= 0, scheme
        assert bool(found["figures"]) == (kind != "gpu")
        assert all(size >= SMALLEST_FIGURE for size in found["figures"]), scheme
        assert found["clipped"] == found["labels"] == [], scheme
    page.close()


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


def test_a_command_in_a_sentence_is_not_cut_at_its_hyphens(tmp_path, browser):
    words = "Some words before it, and then `oelm run DEMO-02 --seeds 42,43` in a sentence. "
    cells = [new_markdown_cell("# Page"), new_markdown_cell(words * 8)]
    cells.append(new_code_cell("", execution_count=1))
    nbformat.write(new_notebook(cells=cells), tmp_path / "page.ipynb")
    page = browser.new_page()
    for width in (420, 800):
        page.set_viewport_size({"width": width, "height": 900})
        page.goto(export(tmp_path / "page.ipynb").as_uri())
        heights = page.locator("p code").evaluate_all(
            "codes => codes.map(code => code.getBoundingClientRect().height)"
        )
        assert len(heights) == 8 and max(heights) < 30  # two lines are 40
    page.close()
