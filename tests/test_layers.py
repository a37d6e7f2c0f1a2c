"""Structure of the library: layers, no import cycles, few files with torch, sizes."""

import ast
import functools
import graphlib
import importlib.metadata
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import oelm_lib

PACKAGE = Path(oelm_lib.__file__).parent
TESTS = Path(__file__).parent
MODULES = sorted(path for path in PACKAGE.rglob("*.py") if path != PACKAGE / "__init__.py")
LAYERS = [
    {"errors", "lazy", "markup", "seeds", "units"},
    {"files"},
    {"yaml_text"},
    {"config", "hardware"},
    {"arms"},
    {"data", "model"},
    {"runs"},
    {"training", "stats"},
    {"view"},
    {"compare", "explore", "study", "bench", "run_page"},
    {"report"},
    {"launch"},
    {"workbench"},
    {"cli"},
]
"""From the ground up: a package imports from lower layers and from itself only."""
LAYER = {package: number for number, packages in enumerate(LAYERS) for package in packages}
NO_TORCH = {
    "errors",
    "files",
    "hardware",
    "lazy",
    "markup",
    "units",
    "yaml_text",
    "config",
    "arms",
    "runs",
    "stats",
    "view",
    "compare",
    "run_page",
}
NO_TORCH |= {"study", "report", "launch", "workbench", "cli"}
TORCH_FREE_FILES = {"model/cost.py", "explore/measures.py", "bench/cpu_results.py"}
MOST_FILE_LINES = 300
MOST_FUNCTION_LINES = 60
MOST_TEST_FILE_LINES = 400


def module_name(path: Path) -> str:
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts).removesuffix(".__init__")


NAMES = {module_name(path) for path in MODULES}


def package(name: str) -> str:
    return name.split(".")[1]


@functools.cache
def imported(path: Path) -> set[str]:
    """Modules that a file imports, also inside functions; library modules by their full name."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            full = {f"{node.module}.{alias.name}" for alias in node.names}
            names |= {name if name in NAMES else node.module for name in full}
    return names


def library_imports(path: Path) -> set[str]:
    return {name for name in imported(path) if name.startswith("oelm_lib.")}


@pytest.mark.parametrize("path", MODULES, ids=module_name)
def test_imports_point_downward(path):
    own = package(module_name(path))
    for name in library_imports(path):
        below = LAYER[package(name)] < LAYER[own]
        assert package(name) == own or below, f"{module_name(path)} imports {name}"


TORCH_FREE = [path for path in MODULES if package(module_name(path)) in NO_TORCH]
TORCH_FREE += [PACKAGE / name for name in sorted(TORCH_FREE_FILES)]


@pytest.mark.parametrize("path", TORCH_FREE, ids=module_name)
def test_torch_stays_where_it_belongs(path):
    assert "torch" not in {name.split(".")[0] for name in imported(path)}


def test_no_file_imports_itself_through_others():
    graph = {module_name(path): library_imports(path) - {module_name(path)} for path in MODULES}
    tuple(graphlib.TopologicalSorter(graph).static_order())


def test_reading_comparing_and_launching_need_no_torch_and_print_nothing():
    packages = {"config", "arms", "runs", "stats", "view", "compare", "run_page", "report"}
    packages |= {"study", "launch", "workbench", "cli"}
    names = [name for name in sorted(NAMES) if package(name) in packages]
    imports = "\n".join(f"import {name}" for name in names)
    code = f"import sys\n{imports}\nassert 'torch' not in sys.modules"
    command = [sys.executable, "-W", "error", "-c", code]
    done = subprocess.run(command, capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.parametrize("path", MODULES, ids=module_name)
def test_files_and_functions_are_short(path):
    text = path.read_text()
    assert len(text.splitlines()) <= MOST_FILE_LINES
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            assert node.end_lineno - node.lineno < MOST_FUNCTION_LINES, node.name


def test_test_files_are_short():
    sizes = {path: len(path.read_text().splitlines()) for path in TESTS.rglob("*.py")}
    assert not {str(path): size for path, size in sizes.items() if size > MOST_TEST_FILE_LINES}


def test_every_package_that_is_imported_is_declared():
    project = tomllib.loads((PACKAGE.parent / "pyproject.toml").read_text())["project"]
    lists = [project["dependencies"], *project["optional-dependencies"].values()]
    declared = {canonicalize_name(Requirement(text).name) for texts in lists for text in texts}
    declared.add("pydantic-core")  # pydantic pins it
    providers = importlib.metadata.packages_distributions()
    names = {name.split(".")[0] for path in MODULES for name in imported(path)}
    for name in names - set(sys.stdlib_module_names) - {"oelm_lib"}:
        found = {canonicalize_name(provider) for provider in providers.get(name, [name])}
        assert found & declared, f"{name} ({', '.join(found)}) is not in pyproject.toml"
