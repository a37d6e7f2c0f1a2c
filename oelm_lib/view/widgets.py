"""Live widgets: a panel, a figure in an output, and a look at the files every few seconds."""

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

import ipywidgets
from IPython import get_ipython

from oelm_lib.view.figure import Figure

BUTTON, WAITING = "oelm-button", "oelm-waiting"
"""CSS classes of a button, and of one that was clicked until the kernel has done what it asks."""
STYLE = """
.oelm-panel {max-width:100%}
.oelm-panel .jupyter-widgets {min-width:0; max-width:100%}
.oelm-panel .widget-inline-hbox {max-width:calc(100% - 4px)}
.oelm-panel .widget-html {overflow:visible}
.oelm-panel .widget-html-content {min-width:0; overflow-x:auto; line-height:1.5;
 overflow-wrap:anywhere}
.oelm-panel .widget-box {overflow:visible}
.oelm-waiting {opacity:.5; pointer-events:none}
.oelm-waiting::after {content:' …'}
"""
"""Style sheet of every panel: its parts fit a narrow window, and a button shows that it waits."""


class Panel(ipywidgets.VBox):
    """A column of widgets: its keys stay in it, and a button that was clicked fades at once.

    In JupyterLab's notebook, the key `a` would add a cell. JupyterLab takes shortcuts where keys
    arrive at the document; those with Ctrl or Meta still do. No trait of ipywidgets listens to
    keys, or to clicks before the kernel does, so the browser attaches `script` when it has loaded
    it.
    """

    script = (
        "<style onload=\"const panel = this.closest('.oelm-panel');"
        " panel.onkeydown = event => event.ctrlKey || event.metaKey || event.stopPropagation();"
        " panel.onclick = event =>"
        f" event.target.closest('.{BUTTON}')?.classList.add('{WAITING}')\">{STYLE}</style>"
    )

    def __init__(self, children: Sequence[ipywidgets.Widget], **options: Any):
        keys = ipywidgets.HTML(self.script, layout={"display": "none"})
        super().__init__([*children, keys], **options)
        self.add_class("oelm-panel")


def columns(*parts: ipywidgets.Widget) -> ipywidgets.HBox:
    """Return parts side by side; in a narrow window one below the other."""
    return ipywidgets.HBox(parts, layout={"flex_flow": "row wrap"})


def dropdown(name: str, options: Any, width: str = "16em") -> ipywidgets.Dropdown:
    """Return a choice of one, the first to begin with."""
    return ipywidgets.Dropdown(description=name, options=options, layout={"width": width})


def button(label: str, action: Callable[[], None], tooltip: str) -> ipywidgets.Button:
    """Return a button that calls `action`; in a Panel it takes no second click meanwhile."""
    made = ipywidgets.Button(
        description=label, tooltip=tooltip, layout={"width": "auto", "min_width": "6em"}
    )

    def press(_: ipywidgets.Button) -> None:
        made.add_class(WAITING)  # the browser has it already, and must hear of it to remove it
        try:
            action()
        finally:
            made.remove_class(WAITING)

    made.add_class(BUTTON).on_click(press)
    return made


def put(output: ipywidgets.Output, figure: Figure) -> None:
    """Show a figure in an output, its save buttons after it.

    Assigning `outputs` works from a task too, which `update_display` does not.
    """
    output.outputs = tuple({"output_type": "display_data"} | part for part in figure.outputs())


def poll(callback: Callable[[], object], interval: float) -> asyncio.Task | None:
    """Call `callback` every `interval` seconds; return the task, or None where no loop runs.

    An error goes to the loop's log, and the next call follows: a file can disappear while it is
    read. Where the notebook's cell runs again, the calls of its earlier run end.
    """

    try:
        loop = asyncio.get_running_loop()
    except RuntimeError:
        return None

    async def repeat() -> None:
        while True:
            await asyncio.sleep(interval)
            try:
                callback()
            except Exception as error:
                loop.call_exception_handler(
                    {"message": "polling the run folders failed", "exception": error}
                )

    task = loop.create_task(repeat())
    keep_latest(task, *_execution())
    return task


_latest: dict[str, tuple[str, list[asyncio.Task]]] = {}
"""Cell of the notebook -> its latest execution, and the tasks that this began."""


def keep_latest(task: asyncio.Task, cell: str | None, execution: str) -> None:
    """Cancel the tasks that earlier executions of a cell began: their widgets are gone.

    Args:
        cell: None: unknown, as outside of a notebook; nothing is cancelled.
        execution: Name of the execution that began `task`.
    """
    if cell is None:
        return
    last, tasks = _latest.get(cell, (execution, []))
    if last != execution:
        for old in tasks:
            old.cancel()
        tasks = []
    _latest[cell] = execution, [*tasks, task]


def _execution() -> tuple[str | None, str]:
    """Return the notebook's cell that runs now, and the name of its execution."""
    shell = get_ipython()
    parent = shell.get_parent() if hasattr(shell, "get_parent") else {}
    return parent.get("metadata", {}).get("cellId"), parent.get("header", {}).get("msg_id", "")
