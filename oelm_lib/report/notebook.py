"""Read, execute and prepare the notebooks that pages are made of."""

import itertools
import json
import logging
import re
import resource
import sys
from collections.abc import Callable
from html import escape
from pathlib import Path
from typing import Any, TextIO

from oelm_lib import config
from oelm_lib.errors import UserError
from oelm_lib.files import read_json, write_json
from oelm_lib.markup import Html, fold

KEY = "oelm"
"""Entry of a notebook's metadata that holds the command which executed it."""
PLOTLY = "application/vnd.plotly.v1+json"
WIDGET = "application/vnd.jupyter.widget-view+json"
HIDDEN_TAGS = {
    "no-report",
    "parameters",
    "injected-parameters",
    "live-only",
    "papermill-error-cell-tag",
}
FOLD = "fold:"
"""A cell tagged `fold:Some words` stands at the end of the page, folded under these words."""
EXECUTABLE = ("application/javascript", "application/vnd.jupyter.widget-state+json")
ANSI = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")
FEWEST_FILES = 64
"""Open files that a kernel needs; with fewer it dies or hangs as it starts, and names no cause."""
NEVER_REPLIED = "Kernel died before replying to kernel_info"
"""What jupyter_client says of a kernel that ended before the first cell."""
KERNEL_DIED = "its kernel died without a message, most often because memory ran out (see dmesg)"
WIDGET_NOTE = '<p class="note">Live controls: open the notebook in JupyterLab.</p>'


def execute(
    name: str,
    target: Path,
    parameters: dict[str, Any],
    command: str = "",
    progress_bar: dict[str, Any] | bool = False,
    log: TextIO | None = None,
) -> None:
    """Execute a notebook of notebooks/ and write it with its outputs.

    Args:
        name: Notebook without its suffix.
        target: The .ipynb to write.
        parameters: Values of the notebook's parameters cell.
        command: What a user types to get the same; the page names it.
        progress_bar: Options of tqdm; False: no progress is shown.
        log: Takes what the kernel prints.

    Raises:
        PapermillExecutionError: A cell failed; `target` holds what there is.
        DeadKernelError: The kernel died; `target` then marks all cells as completed.
        UserError: The limit of open files is too low for a kernel.
    """
    import papermill

    check_open_files()
    logging.getLogger("papermill").setLevel(logging.ERROR)

    def execute_once() -> None:
        papermill.execute_notebook(
            literal_path(config.ROOT / "notebooks" / f"{name}.ipynb"),
            literal_path(target),
            parameters=parameters,
            progress_bar=progress_bar,
            store_widget_state=False,
            coalesce_streams=True,
            cwd=config.ROOT,
            kernel_manager_class=own_kernel_manager(),
            # Without the warning about TCP at each start, and without the error that an idle kernel
            # logs at times when Jupyter interrupts it before the end.
            extra_arguments=["--IPKernelApp.log_level=CRITICAL"],
            stdout_file=log,
            stderr_file=log,
        )

    try:
        with_second_start(execute_once)
    finally:
        if command and target.is_file():
            _record_command(target, command)


def with_second_start(execute_once: Callable[[], None]) -> None:
    """Execute a notebook; once more if its kernel ended before the first cell.

    A kernel binds its TCP ports seconds after its manager has found them free, and ends if another
    process has taken one meanwhile.
    """
    try:
        execute_once()
    except RuntimeError as error:
        if str(error) != NEVER_REPLIED:
            raise
        execute_once()


def check_open_files() -> None:
    """Raise UserError where the limit of open files is too low for a kernel."""
    allowed, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if 0 <= allowed < FEWEST_FILES:
        raise UserError(
            f"ulimit -n: {allowed} open files are allowed here, and a notebook needs at least"
            f" {FEWEST_FILES}; ulimit -n 1024 (in a new shell if this one refuses it), then the"
            " same command"
        )


def own_kernel_manager() -> type:
    """Return a kernel manager that starts this Python, whatever kernels Jupyter finds.

    JUPYTER_PATH of a site module or a hub can hold another Python's `python3` kernel.
    """
    from jupyter_client import AsyncKernelManager
    from jupyter_client.kernelspec import KernelSpec

    class OwnKernelManager(AsyncKernelManager):
        @property
        def kernel_spec(self) -> KernelSpec:
            command = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
            return KernelSpec(argv=command, display_name="Python 3", language="python")

    return OwnKernelManager


def literal_path(path: Path) -> str:
    """Return a path with its braces doubled, since papermill formats every path."""
    return str(path).replace("{", "{{").replace("}", "}}")


def _record_command(path: Path, command: str) -> None:
    """Note in an executed notebook which command made it."""
    try:
        notebook = read_json(path)
    except UserError:
        return  # torn by a full disk, whose error is the one to report
    notebook["metadata"][KEY] = {"command": command}
    write_json(path, notebook)


def read_notebook(path: Path) -> Any:
    """Read an executed notebook.

    Raises:
        UserError: No such file, not a notebook, or never executed.
    """
    import nbformat

    try:
        notebook = nbformat.read(path, as_version=4)
    except FileNotFoundError:
        raise UserError(
            f"{path}: no such notebook; run it first: papermill notebooks/train.ipynb {path}"
        ) from None
    except Exception as problem:  # nbformat raises its own, jsonschema's and json's errors
        reason = str(problem).splitlines()[0] if str(problem) else type(problem).__name__
        raise UserError(
            f"{path}: not a readable notebook ({reason}); give an executed .ipynb"
        ) from None
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    if cells and not any(cell.outputs or cell.execution_count for cell in cells):
        raise UserError(f"{path}: was never executed; run it first: papermill {path} out.ipynb")
    return notebook


def first_error(notebook: Any) -> str | None:
    """Return the error of the first failed cell in one line; None where no cell failed."""
    for number, cell in enumerate(notebook.cells, 1):
        for output in cell.get("outputs", []):
            if output.output_type == "error":
                return f"Cell {number} failed: {output.ename}: {ANSI.sub('', output.evalue)}"
    return None


def prepare(notebook: Any) -> tuple[list[dict], dict[str, dict]]:
    """Reduce a notebook in place to what its page shows.

    Hidden cells go, folded cells move to the end, figures and widgets become placeholders.

    Returns:
        The figures, in the order of their placeholders, and the rows (run -> series) they share.
    """
    figures: list[dict] = []
    rows: dict[str, dict] = {}
    notebook.metadata.pop("widgets", None)
    cells = [cell for cell in notebook.cells if not HIDDEN_TAGS & set(_tags(cell))]
    notebook.cells = sorted(cells, key=lambda cell: _fold_title(cell) is not None)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs = [output for output in cell.outputs if not _is_live_only(output)]
        for output in cell.get("outputs", []):
            if output.output_type == "stream":
                # A progress line rewrites itself; only its last state matters.
                output.text = re.sub(r"[^\n]*\r(?!\n)", "", output.text)
            _replace_live_output(output, figures, rows)
        if title := _fold_title(cell):
            cell.outputs = [_folded(title, cell.outputs)] if cell.outputs else []
    return figures, rows


def _is_live_only(output: Any) -> bool:
    """Return whether an output is for JupyterLab alone, such as a figure's save buttons."""
    return output.get("metadata", {}).get(KEY) == "live-only"


def _replace_live_output(output: Any, figures: list[dict], rows: dict[str, dict]) -> None:
    """Put placeholders in place of a figure or a widget; drop what a page must not run."""
    data = output.get("data", {})
    scripts = [data.pop(kind) for kind in EXECUTABLE if kind in data]
    if scripts and not data:
        data["text/plain"] = "[script left out]"
    if PLOTLY in data:
        from oelm_lib.view.figure import legend_beside  # plotly

        figure = legend_beside(data[PLOTLY])
        rows |= _rows(figure, rows)
        place = f'<figure class="figure" data-figure="{len(figures)}"></figure>'
        output.data = {"text/html": place}
        figures.append(figure)
    elif WIDGET in data:
        output.data = {"text/html": WIDGET_NOTE}


def _rows(figure: dict, known: dict[str, dict]) -> dict[str, dict]:
    """Take the runs' rows out of a figure's metadata; none where it has no whole ones.

    Args:
        known: Rows of the figures before. A run that has other rows there, such as one of the
            same name in another folder, gets a new name, in the figure too.
    """
    meta = figure.setdefault("layout", {}).get("meta")
    if not isinstance(meta, dict):
        return {}
    try:
        rows = json.loads(meta.pop("rows", "{}"))
        rows = {key: series for key, series in rows.items() if isinstance(series, dict)}
    except (TypeError, ValueError, AttributeError):
        return {}
    names = {key: _free_name(key, series, known) for key, series in rows.items()}
    for trace in figure.get("data", []):
        spec = trace.get("meta")
        for part in ("runs", "base"):
            if isinstance(spec, dict) and isinstance(spec.get(part), list):
                spec[part] = [names.get(key, key) for key in spec[part]]
    return {names[key]: series for key, series in rows.items()}


def _free_name(name: str, series: dict, known: dict[str, dict]) -> str:
    """Return a run's name, with a number where it stands for other rows."""
    names = itertools.chain([name], (f"{name} ({number})" for number in itertools.count(2)))
    return next(candidate for candidate in names if known.get(candidate, series) == series)


def _tags(cell: Any) -> list[str]:
    return cell.metadata.get("tags", [])


def _fold_title(cell: Any) -> str | None:
    """Return the words a cell's outputs are folded under, or None."""
    if cell.cell_type != "code":
        return None
    return next((tag.removeprefix(FOLD) for tag in _tags(cell) if tag.startswith(FOLD)), None)


def _folded(title: str, outputs: list[Any]) -> Any:
    """Return one output that holds the text of several, folded."""
    from nbformat.v4 import new_output

    texts = [
        output.get("text") or output.get("data", {}).get("text/plain", "") for output in outputs
    ]
    text = escape(ANSI.sub("", "".join(part.rstrip("\n") + "\n" for part in texts if part)))
    html = fold(title, Html(f"<pre>{text}</pre>"))
    return new_output("display_data", data={"text/html": str(html)})
