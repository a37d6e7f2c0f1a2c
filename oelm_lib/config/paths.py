"""Folders of the checkout, of the runs and of the corpora."""

import os
from pathlib import Path

from oelm_lib.errors import UserError

ROOT = Path(__file__).resolve().parent.parent.parent
PARAMS = ROOT / "params"
VARIABLES = {"OELM_OUTPUTS": "outputs", "OELM_DATA": "data"}
"""Environment variable -> the folder of the checkout that it replaces."""


def outputs_dir() -> Path:
    """Folder of the run folders: OELM_OUTPUTS, or outputs/ in the checkout; always absolute."""
    return _folder("OELM_OUTPUTS")


def data_dir() -> Path:
    """Folder of the prepared corpora: OELM_DATA, or data/ in the checkout; always absolute."""
    return _folder("OELM_DATA")


def fix_folders() -> None:
    """Make OELM_OUTPUTS and OELM_DATA absolute in the environment.

    Child processes with another working folder (kernels, workers, Slurm jobs) then use the same
    folders. A command calls this once, before anything else.
    """
    for name in VARIABLES:
        if os.environ.get(name):
            os.environ[name] = str(_folder(name))


def relative_path(path: Path) -> str:
    """The path relative to the checkout if it lies in it; for messages."""
    return str(path.relative_to(ROOT)) if path.is_relative_to(ROOT) else str(path)


def _folder(variable: str) -> Path:
    """The chosen folder. Raises UserError where it has no absolute path, or one that is no text."""
    chosen = os.environ.get(variable)
    try:
        path = Path(chosen).expanduser().absolute() if chosen else ROOT / VARIABLES[variable]
    except RuntimeError:
        raise UserError(f"{variable}={chosen}: no such user; give the folder in full") from None
    except FileNotFoundError:
        raise UserError(
            f"{variable}={chosen}: the working folder was deleted; go to another one (cd), or give"
            " the folder in full"
        ) from None
    try:
        str(path).encode()
    except UnicodeEncodeError:
        raise UserError(
            f"{variable}: {str(path)!r} is not UTF-8, which notebooks and pages are; choose another"
            " folder"
        ) from None
    return path
