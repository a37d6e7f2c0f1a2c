"""Imports point downward only, torch stays where it belongs, and importing a module only defines names."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import oelm_lib

PACKAGE = Path(oelm_lib.__file__).parent
ORDER = [
    "errors",
    "files",
    "seeds",
    "config",
    "data",
    "runs",
    "model",
    "training",
    "analysis",
    "reporting",
    "launch",
    "bench",
    "cli",
]
FORBIDDEN = {
    ("model", "data"),
    ("model", "runs"),
    ("reporting", "training"),
    ("reporting", "model"),
}
TORCH = {"data/batches.py", "analysis/probes.py"}
LOAD_MODELS = {"analysis/explore.py", "analysis/explorer.py"}
"""Through probes."""
MODULES = sorted(PACKAGE.rglob("*.py"))
# The goal is 5,000; the arms, the probes and the study's harness went past it.
MAX_LINES = 7320


def layer(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imported(path: Path) -> set[str]:
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_point_downward(path):
    mine = layer(path)
    if mine == "__init__":
        assert not imported(path)
        return
    for name in imported(path):
        if name.startswith("oelm_lib."):
            other = name.split(".")[1]
            assert ORDER.index(other) <= ORDER.index(mine), f"{path.name} imports {name}"
            assert (mine, other) not in FORBIDDEN, f"{path.name} imports {name}"
            if mine == "analysis" and other in ("training", "model"):
                assert path.name == "probes.py", f"{path.name} imports {name}"
        if name.split(".")[0] == "torch" and str(path.relative_to(PACKAGE)) not in TORCH:
            assert mine in ("model", "training", "seeds", "bench"), f"{path.name} imports torch"


def test_reading_comparing_and_launching_need_no_torch_and_print_nothing():
    names = [
        "oelm_lib."
        + ".".join(path.relative_to(PACKAGE).with_suffix("").parts).removesuffix(".__init__")
        for path in MODULES
        if layer(path) in ("config", "data", "runs", "analysis", "reporting", "launch", "cli")
        and str(path.relative_to(PACKAGE)) not in TORCH | LOAD_MODELS
    ]
    code = f"import sys\n{chr(10).join(f'import {name}' for name in names)}\nassert 'torch' not in sys.modules"
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], capture_output=True, text=True
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_the_library_stays_small():
    """Lines of code, without blank lines, comments and docstrings."""
    lines = 0
    for path in MODULES:
        text = path.read_text()
        prose = {
            line
            for node in ast.walk(ast.parse(text))
            if isinstance(node, ast.Expr)
            and isinstance(node.value, ast.Constant)
            and isinstance(node.value.value, str)
            for line in range(node.lineno, node.end_lineno + 1)
        }
        numbered = enumerate(text.splitlines(), 1)
        lines += sum(
            bool(line.strip()) and line.strip()[0] != "#" for n, line in numbered if n not in prose
        )
    assert lines < MAX_LINES
