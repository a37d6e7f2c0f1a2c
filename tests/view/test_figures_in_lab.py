"""Figures in a real JupyterLab: they keep their size, can be read in both themes, and are saved."""

import csv
import json
import os
import shutil
import subprocess
import sys

import pytest

from oelm_lib.config import ROOT
from tests.bench.test_cpu_results import result
from tests.conftest import TINY_RUN
from tests.lab import make_checkout, open_lab, run_all, save, start_all
from tests.test_arms import contrast

pytestmark = [pytest.mark.slow, pytest.mark.long]
FIGURES = {"bench": 3, "compare": 7, "explore": 10, "study": 2, "train": 1, "workbench": 3}
"""Notebook -> least number of its figures, live ones included."""
LIVE = {"compare": 1, "explore": 1, "workbench": 3}
"""Notebook -> how many of its figures are parts of widgets, which a reloaded page may not find."""
DRAWN = ".jp-OutputArea-output.jp-RenderedPlotly"
SIZES = f"""() => [...document.querySelectorAll('{DRAWN}')].map(box => {{
    const drawn = box.querySelector('.main-svg, img')?.getBoundingClientRect();
    return [drawn?.width ?? 0, Math.min(box.offsetHeight, drawn?.height ?? 0)];
}})"""
COLOURS = f"""() => {{
    const hex = colour => '#' + colour.match(/\\d+/g).slice(0, 3)
        .map(part => Number(part).toString(16).padStart(2, '0')).join('');
    const text = document.querySelector('{DRAWN} :is(.xtick, .ytick) text');
    return [hex(getComputedStyle(text).fill),
            hex(getComputedStyle(document.querySelector('.jp-Notebook')).backgroundColor)];
}}"""
TITLES = (
    "[...document.querySelectorAll('.jupyter-widgets .js-plotly-plot .ytitle')]"
    ".map(title => title.textContent)"
)
SETTLE = 1500
"""Milliseconds after which a figure that will change its size has begun to."""
SIZE = TINY_RUN | {"model.max_seq_len": 64}  # room for the prompt of explore.ipynb
SMALLEST = 90
"""Least width and height of a figure in pixels; where nothing is to be drawn, it says so."""
WHOLE = f"({SIZES})().filter(size => Math.min(...size) >= {SMALLEST}).length"
"""How many figures are drawn whole."""
TRAIN = """
from oelm_lib import load_config, runs, training
for exp in ("DEMO-01", "DEMO-02"):
    cfg = load_config(exp)
    training.train(runs.open_run(cfg, 42))
"""


@pytest.fixture(scope="module")
def lab(tmp_path_factory, stories):
    """One JupyterLab for the module, in a checkout where each notebook has what it shows."""
    checkout = make_checkout(tmp_path_factory.mktemp("lab"), SIZE)
    outputs = checkout / "outputs"
    outputs.mkdir()
    (outputs / "bench_study_dropout0.json").write_text(json.dumps(result()))
    environment = {"OELM_DATA": str(stories), "OELM_OUTPUTS": str(outputs)}
    code = os.environ | environment | {"PYTHONPATH": str(checkout)}
    subprocess.run([sys.executable, "-c", TRAIN], env=code, cwd=checkout, check=True)
    with open_lab(checkout, **environment) as lab:
        lab.outputs = outputs
        yield lab


def sizes(page):
    """The size of each figure, once two readings agree: a busy machine draws for long."""
    now = None
    for _ in range(40):
        page.wait_for_timeout(SETTLE)
        now, before = page.evaluate(SIZES), now
        if now == before:
            break
    return now


def open_and_run(lab, notebook):
    """Open a notebook high enough that every cell is rendered, run it, wait for its figures."""
    page = lab.open(notebook, height=9000)
    run_all(page)
    page.wait_for_function(f"{WHOLE} >= {FIGURES[notebook]}")
    return page


def change_theme(page):
    """Choose the other theme in the menu; returns the colours of text and ground."""
    light = page.evaluate("document.body.dataset.jpThemeLight")
    page.get_by_role("menuitem", name="Settings", exact=True).click()
    page.get_by_text("Theme", exact=True).first.hover()
    other = "JupyterLab Dark" if light == "true" else "JupyterLab Light"
    page.get_by_text(other, exact=True).click()
    page.wait_for_function(f"document.body.dataset.jpThemeLight !== '{light}'")
    return page.evaluate(COLOURS)


def test_every_notebook_with_figures_is_listed():
    names = {path.stem for path in (ROOT / "notebooks").glob("*.ipynb")}
    assert names - {"gpu"} == set(FIGURES)  # gpu.ipynb shows tables only


@pytest.mark.parametrize("notebook", FIGURES)
def test_figures_keep_their_size_and_can_be_read_in_both_themes(lab, notebook):
    page = open_and_run(lab, notebook)
    before = sizes(page)
    assert len(before) >= FIGURES[notebook] and min(min(size) for size in before) >= SMALLEST

    page.set_viewport_size({"width": 1400, "height": 8400})
    assert sizes(page) == before

    page.keyboard.press("Control+Shift+L")  # the launcher, in a tab before the notebook
    page.locator(".jp-Launcher").wait_for()
    page.locator(".lm-TabBar-tab", has_text=f"{notebook}.ipynb").first.click()
    assert sizes(page) == before

    for _ in range(2):
        ink, ground = change_theme(page)
        assert contrast(ink, ground) >= 3
        assert sizes(page) == before

    save(page)
    page.reload()
    saved = FIGURES[notebook] - LIVE.get(notebook, 0)
    page.wait_for_function(f"{WHOLE} >= {saved}")
    if notebook in LIVE:  # docs/faq.md: run all cells again
        start_all(page)
        page.wait_for_function(f"{WHOLE} >= {FIGURES[notebook]}")
    page.close()


def test_a_widget_changes_its_figure_follows_new_runs_and_the_buttons_save(lab, tmp_path):
    page = open_and_run(lab, "compare")
    page.wait_for_function(f"{TITLES}[0] === 'loss (nats per token)'", timeout=180_000)
    assert page.get_by_text("oelm report X.ipynb").count() == 0
    assert page.locator("[data-mime-type='application/vnd.jupyter.stderr']").count() == 0
    page.locator(".widget-dropdown select:has(option[value='perplexity'])").select_option(
        "perplexity"
    )
    page.wait_for_function(f"{TITLES}[0] === 'perplexity'")
    check_saving(page, tmp_path)
    base = lab.outputs / "DEMO-01_baseline"
    shutil.copytree(base / "seed42", base / "seed43")
    page.locator(".jupyter-widgets .legendtext", has_text="baseline (mean of 2)").wait_for(
        timeout=180_000
    )
    page.close()


def check_saving(page, tmp_path):
    """The buttons under the first figure give a PNG, an SVG and a CSV."""
    starts = {"PNG": b"\x89PNG", "SVG": b"<svg", "CSV": b"trace,kind"}
    for name, start in starts.items():
        with page.expect_download() as download:
            page.locator(f".oelm-save [data-format={name.lower()}]").first.click()
        assert download.value.suggested_filename == f"Gap_to_the_baseline.{name.lower()}"
        download.value.save_as(tmp_path / name)
        assert (tmp_path / name).read_bytes().startswith(start)
    with open(tmp_path / "CSV", newline="") as file:
        rows = list(csv.DictReader(file))
    assert "OELM-Freeze (DEMO-02)" in {row["trace"] for row in rows}
