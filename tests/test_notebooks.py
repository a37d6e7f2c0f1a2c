"""Notebooks hold no logic and no outputs."""

import ast

import nbformat
import pytest

from oelm_lib.config import ROOT

NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
PARAMETERS = {
    "train": ["exp", "seed", "overrides", "fresh"],
    "compare": ["exps", "baseline", "outputs"],
    "explore": ["runs", "prompt"],
    "bench": ["results"],
    "gpu": ["results"],
    "study": ["name"],
    "workbench": ["outputs", "words"],
}
MAX_CELLS = MAX_LINES = 12
LOGIC = (
    ast.FunctionDef,
    ast.AsyncFunctionDef,
    ast.ClassDef,
    ast.For,
    ast.While,
    ast.If,
    ast.Try,
    ast.With,
    ast.Lambda,
    ast.ListComp,
    ast.DictComp,
    ast.SetComp,
    ast.GeneratorExp,
)


@pytest.fixture(params=NOTEBOOKS, ids=lambda path: path.stem)
def notebook(request):
    return request.param, nbformat.read(request.param, as_version=4)


def code_cells(nb):
    return [cell for cell in nb.cells if cell.cell_type == "code"]


def test_git_holds_no_outputs_counts_or_papermill_metadata(notebook):
    _, nb = notebook
    for cell in code_cells(nb):
        assert cell.outputs == []
        assert cell.execution_count is None
        assert set(cell.metadata) <= {"tags", "deletable"}
    assert set(nb.metadata) <= {"kernelspec", "language_info"}


def test_exactly_one_parameters_cell_second_with_plain_literals(notebook):
    path, nb = notebook
    tagged = [
        index
        for index, cell in enumerate(nb.cells)
        if "parameters" in cell.metadata.get("tags", [])
    ]
    assert tagged == [1]
    lines = nb.cells[1].source.splitlines()
    names = []
    for line in lines:
        assert line.count("=") == 1, line
        statement = ast.parse(line).body[0]
        assert isinstance(statement, ast.AnnAssign)
        assert statement.annotation.id in ("str", "int", "float", "bool", "dict", "list")
        ast.literal_eval(statement.value)
        names.append(statement.target.id)
    assert names == PARAMETERS[path.stem]


def test_cells_are_few_and_short_and_hold_no_logic(notebook):
    _, nb = notebook
    cells = code_cells(nb)
    assert len(cells) <= MAX_CELLS
    assert nb.cells[0].cell_type == "markdown"
    for cell in cells:
        assert len(cell.source.splitlines()) <= MAX_LINES
        assert not any(word in cell.source for word in ("sys.path", "pip install", "../", "!", "%"))
        assert not [node for node in ast.walk(ast.parse(cell.source)) if isinstance(node, LOGIC)]
