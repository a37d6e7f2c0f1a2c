"""Live widgets: panels keep their keys from JupyterLab's shortcuts; files are polled."""

import asyncio
import contextlib

import ipywidgets
import pytest
from jupyter_client.manager import start_new_kernel

from oelm_lib.compare.curve_explorer import CurveExplorer
from oelm_lib.explore.head_explorer import HeadExplorer
from oelm_lib.view.widgets import WAITING, Panel, button, columns, keep_latest, poll
from oelm_lib.workbench.experiment_view import ExperimentView
from oelm_lib.workbench.form_view import FormView
from oelm_lib.workbench.runs_view import RunsView
from oelm_lib.workbench.table_view import TableView
from tests.browser import open_browser

STATE = "[task.cancelled() for task in tasks]"
ATTACH = """html => {
    const panel = document.createElement('div'), holder = document.createElement('div');
    panel.className = 'oelm-panel';
    holder.style.display = 'none';
    holder.innerHTML = html;
    const button = document.createElement('button');
    button.className = 'oelm-button';
    button.innerHTML = '<i>Start</i>';
    panel.append(holder, document.createElement('select'), button);
    document.body.append(panel);
    window.keys = '';
    document.addEventListener('keydown', event => { window.keys += event.key; });
}"""
"""Make the elements of a panel apart from the page, and then attach them, as ipywidgets does."""


@contextlib.contextmanager
def panel_page(tmp_path):
    """A page with a panel whose script has run."""
    with open_browser(tmp_path) as context:
        page = context.new_page()
        page.evaluate(ATTACH, Panel.script)
        page.wait_for_function("!!document.querySelector('.oelm-panel').onclick")
        yield page


@pytest.mark.parametrize(
    "kind", [CurveExplorer, HeadExplorer, ExperimentView, FormView, RunsView, TableView]
)
def test_everything_live_in_a_notebook_is_a_panel(kind):
    assert issubclass(kind, Panel)


def test_a_panel_has_its_script_and_its_class():
    panel = Panel([])
    (keys,) = panel.children
    assert keys.value == Panel.script and "oelm-panel" in panel._dom_classes


def test_a_call_that_fails_is_logged_and_the_next_one_follows():
    calls, logged = [], []

    def callback():
        calls.append(None)
        if len(calls) == 1:
            raise FileNotFoundError("gone")

    async def wait_for_two_calls():
        asyncio.get_running_loop().set_exception_handler(lambda loop, entry: logged.append(entry))
        task = poll(callback, 0.0)
        while len(calls) < 2:
            await asyncio.sleep(0)
        task.cancel()

    asyncio.run(wait_for_two_calls())
    assert [str(entry["exception"]) for entry in logged] == ["gone"]
    assert poll(callback, 0.0) is None


def test_polling_ends_where_its_cell_runs_again_and_no_other():
    """Each re-run of a cell added a reader of all run folders for the life of the kernel."""

    async def cancelled():
        began = [("a", "1"), ("a", "1"), ("b", "2"), (None, ""), ("a", "3"), (None, "")]
        tasks = []
        for cell, execution in began:
            tasks.append(asyncio.ensure_future(asyncio.sleep(60)))
            keep_latest(tasks[-1], cell, execution)
        await asyncio.sleep(0)
        states = [task.cancelled() for task in tasks]
        for task in tasks:
            task.cancel()
        return states

    assert asyncio.run(cancelled()) == [True, True, False, False, False, False]


@pytest.mark.slow
def test_the_cell_that_polls_is_known_in_a_kernel():
    manager, client = start_new_kernel(kernel_name="python3")
    try:

        def state(code, cell):
            content = {"code": code, "user_expressions": {"state": STATE}}
            message = client.session.msg("execute_request", content, metadata={"cellId": cell})
            client.shell_channel.send(message)
            while True:
                reply = client.get_shell_msg(timeout=120)
                if reply["parent_header"].get("msg_id") == message["msg_id"]:
                    return reply["content"]["user_expressions"]["state"]["data"]

        state("from oelm_lib.view.widgets import poll; tasks = []", "start")
        for cell in ("a", "b", "a"):
            state("tasks.append(poll(list, 60))", cell)
        assert state("", "end")["text/plain"] == "[True, False, False]"
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)


@pytest.mark.slow
def test_keys_pressed_in_a_panel_do_not_reach_the_document_unless_with_ctrl(tmp_path):
    with panel_page(tmp_path) as page:
        page.keyboard.press("x")
        page.focus("select")
        for key in ("a", "d", "ArrowDown", "Control+y"):
            page.keyboard.press(key)
        assert page.evaluate("window.keys") == "xControly"


@pytest.mark.slow
def test_a_button_fades_as_soon_as_it_is_clicked(tmp_path):
    with panel_page(tmp_path) as page:
        page.click("select")
        assert page.locator(".oelm-waiting").count() == 0
        page.click(".oelm-button i")
        faded = page.locator(".oelm-button.oelm-waiting")
        assert faded.evaluate("button => getComputedStyle(button).opacity") == "0.5"


@pytest.mark.parametrize("error", [None, RuntimeError("a mistake of ours")])
def test_a_button_waits_until_its_action_has_ended_however_it_ends(error):
    seen = []

    def act():
        seen.append(WAITING in made._dom_classes)
        if error:
            raise error

    made = button("Start", act, "")
    with contextlib.suppress(RuntimeError):
        made.click()
    assert seen == [True] and WAITING not in made._dom_classes


def test_columns_of_choices_wrap_in_a_narrow_window():
    """Beside a list of 26 em the choices of compare.ipynb were a few pixels wide."""
    boxes = [ipywidgets.VBox(), ipywidgets.VBox()]
    side_by_side = columns(*boxes)
    assert list(side_by_side.children) == boxes and side_by_side.layout.flex_flow == "row wrap"
