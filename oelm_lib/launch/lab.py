"""JupyterLab on copies of the notebooks, so that saving one changes nothing that git tracks."""

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

from oelm_lib import config
from oelm_lib.errors import UserError
from oelm_lib.files import as_user_error, read_json, sha256_file, write_json

FOLDER = "lab"
"""Folder of the checkout that holds the copies; git ignores it."""
NEWS = "@jupyterlab/apputils-extension:announcements"
"""JupyterLab's extension that asks whether to fetch news from a website."""
KEY = "oelm_original"
"""Entry of a copy's metadata: the SHA-256 of the notebook that it was made from."""


def open_lab(arguments: Sequence[str]) -> NoReturn:
    """Replace this process by JupyterLab, with the copy of the workbench open.

    Args:
        arguments: Further options of `jupyter lab`.

    Raises:
        UserError: Root starts it without --allow-root, or lab/ cannot be written.
    """
    if os.geteuid() == 0 and "--allow-root" not in arguments:
        raise UserError(
            "JupyterLab does not start for root unless asked to, since its pages can run any"
            " command; as another user: make lab; as root, e.g. in a container:"
            " .venv/bin/oelm lab --allow-root"
        )
    for line in copy_notebooks(config.ROOT):
        print(line, flush=True)
    options = [
        f"--ServerApp.root_dir={config.ROOT}",
        "--ServerApp.ip=127.0.0.1",
        f"--LabApp.default_url=/lab/tree/{FOLDER}/workbench.ipynb",
    ]
    command = [sys.executable, "-m", "jupyterlab", *options, *arguments]
    os.execve(sys.executable, command, os.environ | _without_news(config.ROOT / FOLDER))


def _without_news(folder: Path) -> dict[str, str]:
    """Return the environment of a JupyterLab that neither fetches news nor asks whether it may."""
    settings = folder / ".jupyter"
    (settings / "labconfig").mkdir(parents=True, exist_ok=True)
    write_json(settings / "labconfig" / "page_config.json", {"disabledExtensions": {NEWS: True}})
    paths = [str(settings), os.environ.get("JUPYTER_CONFIG_PATH")]
    return {"JUPYTER_CONFIG_PATH": os.pathsep.join(filter(None, paths))}


def copy_notebooks(root: Path) -> list[str]:
    """Copy the notebooks that lab/ lacks, and those that have changed since they were copied.

    A copy of an older version is kept under another name; any other file in lab/ stays as it is.

    Args:
        root: Folder that holds notebooks/ and lab/.

    Returns:
        One line for each copy that was renamed.

    Raises:
        UserError: lab/ cannot be written.
    """
    lines = []
    with as_user_error(root / FOLDER, "a notebook was not copied", exact=True):
        (root / FOLDER).mkdir(exist_ok=True)
        for original in sorted((root / "notebooks").glob("*.ipynb")):
            lines += _copy(original, root / FOLDER / original.name)
    return lines


def _copy(original: Path, copy: Path) -> list[str]:
    """Make a copy unless there is one of this version; returns a line where one was renamed."""
    version, lines = sha256_file(original), []
    if copy.exists():
        if _version(copy) in (None, version):
            return []
        kept = _free_name(copy)
        os.rename(copy, kept)
        lines = [
            f"{FOLDER}/{copy.name}: the notebook has a new version; your copy of the old one is"
            f" {FOLDER}/{kept.name}"
        ]
    notebook = read_json(original, "take it from git: git checkout -- notebooks")
    notebook["metadata"][KEY] = version
    write_json(copy, notebook)
    return lines


def _version(copy: Path) -> Any:
    """Return the SHA-256 of the notebook that was copied; None if the file is no copy."""
    try:
        return (read_json(copy) or {}).get("metadata", {}).get(KEY)
    except (UserError, AttributeError):
        return None


def _free_name(path: Path) -> Path:
    """Return the first name <stem>-old<n> that no file has."""
    number = 1
    while (kept := path.with_name(f"{path.stem}-old{number}{path.suffix}")).exists():
        number += 1
    return kept
