"""Live widgets: panels keep their keys from JupyterLab's shortcuts; files are looked at again."""

import asyncio

import ipywidgets
import pytest

from oelm_lib.compare.live import CurveExplorer
from oelm_lib.explore.live import HeadExplorer
from oelm_lib.view.live import ACTS, ANSWERED, Panel, columns, on_press, watch
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
    panel.append(holder, document.createElement('select'));
    document.body.append(panel);
    window.keys = '';
    document.addEventListener('keydown', event => { window.keys += event.key; });
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


def test_a_look_that_fails_is_logged_and_the_next_one_follows():
    looks, logged = [], []

    def look():
        looks.append(None)
        if len(looks) == 1:
            raise FileNotFoundError("gone")

    async def wait_for_two_looks():
        asyncio.get_running_loop().set_exception_handler(lambda loop, entry: logged.append(entry))
        task = watch(look, 0.0)
        while len(looks) < 2:
            await asyncio.sleep(0)
        task.cancel()

    asyncio.run(wait_for_two_looks())
    assert [str(entry["exception"]) for entry in logged] == ["gone"]
    assert watch(look, 0.0) is None


@pytest.mark.slow
def test_keys_pressed_in_a_panel_do_not_reach_the_document_unless_with_ctrl(tmp_path):
    with open_browser(tmp_path) as context:
        page = context.new_page()
        page.evaluate(ATTACH, Panel.script)
        page.wait_for_function("!!document.querySelector('.oelm-panel').onkeydown")
        page.keyboard.press("x")
        page.focus("select")
        for key in ("a", "d", "ArrowDown", "Control+y"):
            page.keyboard.press(key)
        assert page.evaluate("window.keys") == "xControly"


@pytest.mark.slow
def test_a_button_is_faint_from_the_click_until_the_kernel_has_answered(tmp_path):
    with open_browser(tmp_path) as context:
        page = context.new_page()
        page.evaluate(ATTACH, Panel.script)
        page.wait_for_function("!!document.querySelector('.oelm-panel').onclick")
        page.evaluate(
            "html => document.querySelector('.oelm-panel').insertAdjacentHTML('beforeend', html)",
            f"<button class='{ACTS}'>Start</button><button id='other'>PNG</button>",
        )
        for _ in range(2):
            page.click(f".{ACTS}")
            page.click("#other")
            assert page.locator(".oelm-sent").all_text_contents() == ["Start"]
            assert (
                float(page.locator(".oelm-sent").evaluate("b => getComputedStyle(b).opacity")) < 1
            )
            page.evaluate(f"document.querySelector('.{ACTS}').classList.toggle('{ANSWERED}')")
            page.wait_for_selector(".oelm-sent", state="detached")


def test_each_press_is_answered_also_where_its_action_fails():
    pressed = []

    def action():
        pressed.append(None)
        if len(pressed) == 2:
            raise OSError("full")

    button = on_press(ipywidgets.Button(), action)
    assert ACTS in button._dom_classes and ANSWERED not in button._dom_classes
    button.click()
    assert ANSWERED in button._dom_classes
    button.click()  # ipywidgets logs the error
    assert len(pressed) == 2
    assert ANSWERED not in button._dom_classes and ACTS in button._dom_classes


def test_columns_of_choices_wrap_in_a_narrow_window():
    """Beside a list of 26 em the choices of compare.ipynb were a few pixels wide."""
    boxes = [ipywidgets.VBox(), ipywidgets.VBox()]
    side_by_side = columns(*boxes)
    assert list(side_by_side.children) == boxes and side_by_side.layout.flex_flow == "row wrap"
