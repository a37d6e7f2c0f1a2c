"""Remove run folders into a trash folder, and bring them back."""

import datetime
import os
from pathlib import Path

from oelm_lib import config
from oelm_lib.errors import UserError
from oelm_lib.runs.lock import RunLock
from oelm_lib.runs.reading import ACTIVE, state

TRASH = ".trash"
"""Folder of the outputs folder that holds removed runs as <time>/<ID>_<slug>/seed<k>."""


def remove_run(path: Path) -> Path:
    """Move a run folder into the trash; returns where it lies now.

    Raises:
        UserError: The run trains, or another process writes it.
    """
    path = path.absolute()
    if state(path) in ACTIVE:
        raise UserError(f"{path}: the run is {state(path)}; stop it first: oelm stop {path}")
    lock = RunLock(path)
    lock.acquire()  # refuses a folder that another process writes, and keeps starters out
    try:
        moment = datetime.datetime.now().strftime("%Y%m%d-%H%M%S-%f")
        target = path.parent.parent / TRASH / moment / path.parent.name / path.name
        target.parent.mkdir(parents=True)
        os.rename(path, target)
    finally:
        lock.release()
    (target / "lock.json").unlink(missing_ok=True)
    _remove_if_empty(path.parent)
    return target


def restore_run(name: str, outputs: Path | None = None) -> Path:
    """Bring back the run of a name that was removed last; returns its folder.

    Args:
        name: `<ID>`, `<ID>/seed<k>`, or the same with the folder's name.

    Raises:
        UserError: The trash has no such run, or the folder exists again.
    """
    root = outputs or config.outputs_dir()
    wanted = name.strip("/")
    for path in removed_runs(root):
        folder, seed = path.parent.name, path.name
        exp = folder.split("_")[0]
        if wanted in (exp, folder, f"{exp}/{seed}", f"{folder}/{seed}"):
            return _restore(path, root / folder / seed)
    raise UserError(f"{root / TRASH}: no removed run is called {name!r}")


def removed_runs(outputs: Path | None = None) -> list[Path]:
    """Return the run folders in the trash, the one removed last first."""
    root = (outputs or config.outputs_dir()) / TRASH
    return sorted(root.glob("*/*/seed*"), key=lambda path: path.parts[-3], reverse=True)


def _restore(path: Path, target: Path) -> Path:
    if target.exists():
        raise UserError(f"{target}: exists again; remove it first, or keep the one in {path}")
    target.parent.mkdir(parents=True, exist_ok=True)
    os.rename(path, target)
    _remove_if_empty(path.parent)
    _remove_if_empty(path.parent.parent)
    return target


def _remove_if_empty(folder: Path) -> None:
    if folder.is_dir() and not any(folder.iterdir()):
        folder.rmdir()
