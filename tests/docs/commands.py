"""The commands on the pages: found in blocks of bash and in inline code, and parsed."""

import contextlib
import itertools
import re
import shlex
import tomllib
from pathlib import Path

import click
import nbformat

from oelm_lib.cli import main
from oelm_lib.config import ROOT

BLOCK = re.compile(r"^```bash\n(.*?)^```", re.MULTILINE | re.DOTALL)
INLINE = re.compile(r"`(?:\.venv/bin/)?(oelm [a-z]+(?: [^`]*)?)`")


def commands(path: Path) -> list[str]:
    """The lines of a page's blocks of bash, in their order."""
    text = "".join(BLOCK.findall(path.read_text(encoding="utf-8")))
    lines = text.replace("\\\n", " ").replace(".venv/bin/", "").splitlines()
    return [line for line in lines if line.strip() and not line.startswith("#")]


def inline_commands(path: Path) -> list[str]:
    """The `oelm` commands in a page's text."""
    text = re.sub(r"^```.*?^```", "", path.read_text(encoding="utf-8"), flags=re.M | re.S)
    return [re.sub(r"\s+", " ", command) for command in INLINE.findall(text)]


def parse(command: str) -> None:
    """Check the names in a command without running it. Raises where one does not exist."""
    words = shlex.split(command, comments=True)
    while "=" in words[0]:  # variables
        words = words[1:]
    program, *arguments = words
    parsers = {
        "oelm": _parse_oelm,
        "make": _parse_make,
        "papermill": _parse_papermill,
        "pip": _parse_pip,
        "python": _parse_python,
    }
    parsers[program](arguments)


def _parse_oelm(arguments: list[str]) -> None:
    found: click.Command = main
    while isinstance(found, click.Group):
        found, arguments = found.commands[arguments[0]], arguments[1:]
    with contextlib.suppress(click.MissingParameter):  # a sentence may name the command alone
        found.make_context(found.name, list(arguments))


def _parse_make(arguments: list[str]) -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    assert re.search(rf"^{arguments[0]}:", makefile, re.MULTILINE), arguments


def _parse_papermill(arguments: list[str]) -> None:
    notebook = nbformat.read(ROOT / arguments[0], 4)
    cell = next(cell for cell in notebook.cells if "parameters" in cell.metadata.get("tags", []))
    for flag, name in itertools.pairwise(arguments):
        assert flag != "-p" or re.search(rf"^{name}\b", cell.source, re.MULTILINE), name


def _parse_python(arguments: list[str]) -> None:
    assert arguments[0] == "-m"
    assert (ROOT / f"{arguments[1].replace('.', '/')}.py").is_file(), arguments


def _parse_pip(arguments: list[str]) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert arguments[0] == "install"
    for extra in re.findall(r"\.\[(\w+)\]", arguments[-1]):
        assert extra in project["optional-dependencies"], extra
