"""Figures in a real JupyterLab: they keep their size, can be read on dark ground, and are saved."""

import csv

import pytest

from tests import runs_factory
from tests.lab import open_lab, run_all
from tests.test_arms import contrast

STATIC = ".jp-OutputArea-output.jp-RenderedPlotly"
SIZES = f"""() => [...document.querySelectorAll('{STATIC}')].map(box => {{
    const drawn = box.querySelector('.main-svg, img')?.getBoundingClientRect();
    return [drawn?.width ?? 0, Math.min(box.offsetHeight, drawn?.height ?? 0)];
}})"""
COLOURS = f"""() => {{
    const hex = colour => '#' + colour.match(/\\d+/g).slice(0, 3)
        .map(part => Number(part).toString(16).padStart(2, '0')).join('');
    const text = document.querySelector('{STATIC} .xtick text');
    return [hex(getComputedStyle(text).fill),
            hex(getComputedStyle(document.querySelector('.jp-Notebook')).backgroundColor)];
}}"""
SMALLEST = 200


def sizes(page):
    page.wait_for_timeout(1500)
    return page.evaluate(SIZES)


@pytest.mark.slow
def test_figures_keep_their_size_and_are_saved(tmp_path):
    runs_factory.make_demo(tmp_path / "outputs", seeds=(42, 43))
    with open_lab(tmp_path, "compare", OELM_OUTPUTS=str(tmp_path / "outputs")) as page:
        # High enough that JupyterLab renders every cell.
        page.set_viewport_size({"width": 1400, "height": 9000})
        run_all(page)
        page.wait_for_function(f"document.querySelectorAll('{STATIC} .main-svg').length >= 12")
        before = sizes(page)
        assert len(before) == 7 and min(min(size) for size in before) >= SMALLEST

        page.set_viewport_size({"width": 1400, "height": 8400})
        assert sizes(page) == before

        page.keyboard.press("Control+Shift+L")  # the launcher, in a tab before the notebook
        page.locator(".jp-Launcher").wait_for()
        page.locator(".lm-TabBar-tab", has_text="compare.ipynb").first.click()
        assert sizes(page) == before

        check_saving(page, tmp_path)

        page.get_by_role("menuitem", name="Settings", exact=True).click()
        page.get_by_text("Theme", exact=True).first.hover()
        page.get_by_text("JupyterLab Dark", exact=True).click()
        page.wait_for_function("document.body.dataset.jpThemeLight === 'false'")
        assert sizes(page) == before
        ink, ground = page.evaluate(COLOURS)
        assert contrast(ink, ground) >= 3

        page.keyboard.press("Control+s")
        page.wait_for_timeout(2000)
        page.reload()
        page.locator(STATIC).first.wait_for(timeout=60_000)
        # The explorer needs a kernel; every static figure is there again.
        page.wait_for_function(f"document.querySelectorAll('{STATIC}').length >= 6")
        after = sizes(page)
        assert len(after) >= 6 and min(min(size) for size in after) >= SMALLEST


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
    assert any(float(row["plus"] or 0) > 0 for row in rows)
