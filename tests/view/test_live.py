"""Panels of live widgets keep the keys pressed in them from JupyterLab's shortcuts."""

import pytest

from oelm_lib.compare.live import CurveExplorer
from oelm_lib.explore.live import HeadExplorer
from oelm_lib.view.live import Panel
from oelm_lib.workbench.experiment_view import ExperimentView
from oelm_lib.workbench.form_view import FormView
from oelm_lib.workbench.runs_view import RunsView
from oelm_lib.workbench.table_view import TableView
from tests.browser import open_browser

ATTACH = """html => {
    const panel = document.createElement('div'), holder = document.createElement('div');
    panel.className = 'oelm-panel';
    holder.style.display = 'none';
    holder.innerHTML = html;
    panel.append(holder);
    document.body.append(panel);
}"""
"""Make the elements of a panel apart from the page, and then attach them, as ipywidgets does."""


@pytest.mark.parametrize(
    "kind", [CurveExplorer, HeadExplorer, ExperimentView, FormView, RunsView, TableView]
)
def test_everything_live_in_a_notebook_is_a_panel(kind):
    assert issubclass(kind, Panel)


def test_a_panel_has_its_script_and_its_class():
    panel = Panel([])
    (keys,) = panel.children
    assert keys.value == Panel.script and "oelm-panel" in panel._dom_classes


@pytest.mark.slow
def test_the_script_sets_the_attribute_at_which_jupyterlab_stops(tmp_path):
    with open_browser(tmp_path) as context:
        page = context.new_page()
        page.evaluate(ATTACH, Panel.script)
        page.wait_for_selector(".oelm-panel[data-lm-suppress-shortcuts]", state="attached")
