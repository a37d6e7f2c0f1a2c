import pytest

from tests import runs_factory
from tests.lab import open_lab, run_all

TITLES = (
    "[...document.querySelectorAll('.jupyter-widgets .js-plotly-plot .ytitle')]"
    ".map(title => title.textContent)"
)


@pytest.mark.slow
def test_compare_runs_in_jupyterlab_and_a_widget_changes_its_figure(tmp_path):
    runs_factory.make_demo(tmp_path / "outputs", seeds=(42, 43))
    with open_lab(tmp_path, "compare", OELM_OUTPUTS=str(tmp_path / "outputs")) as page:
        page.set_viewport_size({"width": 1400, "height": 9000})
        page.get_by_text("| Idle").wait_for(timeout=60_000)
        run_all(page)
        page.wait_for_function(f"{TITLES}[0] === 'loss (nats per token)'", timeout=60_000)
        # Six figures of the comparison and the explorer's; none of plain HTML's fallback lines.
        assert page.locator(".js-plotly-plot").count() == 7
        assert page.get_by_text("oelm report X.ipynb").count() == 0
        assert page.locator("[data-mime-type='application/vnd.jupyter.stderr']").count() == 0
        page.locator(".widget-dropdown select:has(option[value='perplexity'])").select_option(
            "perplexity"
        )
        page.wait_for_function(f"{TITLES}[0] === 'perplexity'", timeout=30_000)
        runs_factory.make_run(tmp_path / "outputs", "DEMO-01", 44)
        page.locator(".jupyter-widgets .legendtext", has_text="baseline (mean of 3)").wait_for(
            timeout=60_000
        )
        page.screenshot(path=tmp_path / "lab.png")
