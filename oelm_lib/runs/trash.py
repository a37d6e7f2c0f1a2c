"""The trash folder: run folders are moved into it and restored from it."""

import contextlib
import datetime
import os
from pathlib import Path

from oelm_lib import config
from oelm_lib.errors import UserError
from oelm_lib.runs.lock import RunLock
from oelm_lib.runs.reading import state
from oelm_lib.runs.schema import ACTIVE

TRASH = ".trash"
"""Folder of the outputs folder that holds removed runs as <time>/<ID>_<slug>/seed<k>."""


def remove_runs(paths: list[Path]) -> list[Path]:
    """Move run folders into the trash as one removal; returns their new paths.

    Raises:
        UserError: A run trains, or another process writes it; then none is removed.
    """
    paths = list(dict.fromkeys(path.absolute() for path in paths))
    for path in paths:
        if state(path) in ACTIVE:
            raise UserError(f"{path}: the run is {state(path)}; stop it first: oelm stop {path}")
    moment = datetime.datetime.now().strftime("%Y%m%d-%H%M%S-%f")
    targets = []
    with contextlib.ExitStack() as locks:
        for path in paths:  # no other process writes the folder now, or starts to
            lock = RunLock(path)
            lock.acquire()
            locks.callback(lock.release)
        for path in paths:
            target = path.parent.parent / TRASH / moment / path.parent.name / path.name
            target.parent.mkdir(parents=True, exist_ok=True)
            os.rename(path, target)
            targets.append(target)
    for path, target in zip(paths, targets, strict=True):
        (target / "lock.json").unlink(missing_ok=True)
        _remove_if_empty(path.parent)
    return targets


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


def restore_last(outputs: Path | None = None) -> list[Path]:
    """Bring back all runs of the last removal; returns their folders.

    Raises:
        UserError: The trash is empty, or one of the folders exists again; then none is moved.
    """
    root = outputs or config.outputs_dir()
    removed = removed_runs(root)
    if not removed:
        raise UserError("the trash is empty: no run was removed")
    last = [path for path in reversed(removed) if path.parts[-3] == removed[0].parts[-3]]
    targets = [root / path.parent.name / path.name for path in last]
    for path, target in zip(last, targets, strict=True):
        _check_free(path, target)
    return [_restore(path, target) for path, target in zip(last, targets, strict=True)]


def removed_runs(outputs: Path | None = None) -> list[Path]:
    """Return the run folders in the trash, the one removed last first."""
    root = (outputs or config.outputs_dir()) / TRASH
    return sorted(root.glob("*/*/seed*"), reverse=True)


def _restore(path: Path, target: Path) -> Path:
    """Move a run folder out of the trash; returns `target`."""
    _check_free(path, target)
    target.parent.mkdir(parents=True, exist_ok=True)
    os.rename(path, target)
    _remove_if_empty(path.parent)
    _remove_if_empty(path.parent.parent)
    return target


def _check_free(path: Path, target: Path) -> None:
    """Raise UserError where there is a folder at `target` again."""
    if target.exists():
        raise UserError(f"{target}: exists again; remove it first, or keep the one in {path}")


def _remove_if_empty(folder: Path) -> None:
    if folder.is_dir() and not any(folder.iterdir()):
        folder.rmdir()
