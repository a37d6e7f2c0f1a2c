"""Notebooks executed in this process: faster than a kernel each, for tests of their pages."""

import ast
import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nbformat

from oelm_lib.config import ROOT


@contextlib.contextmanager
def shell() -> Iterator[None]:
    """Give `display` an IPython shell to write to."""
    from IPython.core.interactiveshell import InteractiveShell

    InteractiveShell.instance()
    try:
        yield
    finally:
        InteractiveShell.clear_instance()


def executed(name: str, target: Path, parameters: dict[str, Any]) -> Path:
    """Write notebooks/<name>.ipynb to `target` with the outputs of its cells; needs `shell`."""
    from IPython.display import display

    notebook = nbformat.read(ROOT / "notebooks" / f"{name}.ipynb", as_version=4)
    names = {"display": display}
    for count, cell in enumerate(notebook.cells, 1):
        tags = cell.metadata.get("tags", [])
        if cell.cell_type == "code" and "live-only" not in tags:
            cell.update(execution_count=count, outputs=_outputs(cell.source, names))
        if "parameters" in tags:
            names.update(parameters)
    notebook.metadata["papermill"] = {"parameters": parameters, "input_path": f"{name}.ipynb"}
    nbformat.write(notebook, target)
    return target


def _outputs(source: str, names: dict[str, Any]) -> list[Any]:
    """Run a cell and return what it displays, its last value included."""
    from IPython.utils.capture import capture_output

    tree = ast.parse(source)
    if tree.body and isinstance(last := tree.body[-1], ast.Expr):
        call = ast.Call(ast.Name("display", ast.Load()), [last.value], [])
        tree.body[-1] = ast.Expr(call)
    with capture_output() as captured:
        exec(compile(ast.fix_missing_locations(tree), "cell", "exec"), names)
    return [
        nbformat.v4.new_output("display_data", data=output.data, metadata=output.metadata or {})
        for output in captured.outputs
        if output.data.get("text/plain") != "None"
    ]
