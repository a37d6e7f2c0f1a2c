"""The trash folder: runs and experiments are moved into it and restored from it."""

import contextlib
import errno
import os
import re
import shutil
from pathlib import Path

from oelm_lib import config
from oelm_lib.config.experiment import ID_PATTERN
from oelm_lib.errors import UserError
from oelm_lib.files import as_user_error, time_stamp
from oelm_lib.runs.find import find_runs
from oelm_lib.runs.lock import RunLock
from oelm_lib.runs.names import matches_run, run_name
from oelm_lib.runs.provenance import git_output
from oelm_lib.runs.reading import state
from oelm_lib.runs.schema import ACTIVE
from oelm_lib.runs.stop import check_not_queued

TRASH = ".trash"
"""Folder of the outputs folder that holds what was removed.

Runs lie there as <time>/<ID>_<slug>/seed<k>, an experiment as <time>/params/<ID>.yaml.
"""
RUN_FILES = (
    "config.yaml",
    "metrics.jsonl",
    "status.json",
    "summary.json",
    "notebook.log",
    "lock.json",
)
"""Each run folder that is not empty has one of these."""


def remove_runs(paths: list[Path]) -> list[Path]:
    """Move run folders into the trash as one removal, all or none; returns their new paths.

    Raises:
        UserError: A run trains or waits in a queue, another process writes it, or its folder
            cannot be moved or holds other files only.
    """
    paths = list(dict.fromkeys(path.absolute() for path in paths))
    for path in paths:
        _check_is_run(path)
        check_not_queued(path)
        if (current := state(path)) in ACTIVE:
            raise UserError(f"{path}: the run is {current}; stop it first: oelm stop {path}")
    trash = Path(TRASH) / time_stamp()
    moves = {path: path.parent.parent / trash / run_name(path) for path in paths}
    with contextlib.ExitStack() as locks:
        for path in paths:  # no other process writes the folder now, or starts to
            lock = RunLock(path)
            lock.acquire()
            locks.callback(lock.release)
        _move(moves)
    for path, target in moves.items():
        (target / "lock.json").unlink(missing_ok=True)
        if re.match(f"{ID_PATTERN}_", path.parent.name):  # the arm of the runs, no other folder
            _remove_if_empty(path.parent)
    return list(moves.values())


def _check_is_run(path: Path) -> None:
    """Raise UserError for a folder with files of which none is a run's."""
    with as_user_error(path, "cannot be read", exact=True):
        names = {file.name for file in path.iterdir()}
    if names and names.isdisjoint(RUN_FILES):
        raise UserError(
            f"{path}: holds no file of a run ({', '.join(RUN_FILES)}); delete it by hand"
        )


def remove_experiment(exp: str, outputs: Path) -> Path:
    """Move the file of an experiment into the trash; returns where it lies now.

    Raises:
        UserError: git tracks the file, it has runs, an experiment or a study is made from it, or it
            cannot be moved.
    """
    path = config.experiment_path(config.find_id(exp))
    where = f"params/{path.name}"
    tracked = git_output("ls-files", "--", path.name, folder=path.parent)
    if tracked is None:
        raise UserError(
            f"{where}: without git, nothing says whether it is your own; delete the file {path}"
        )
    if tracked:
        raise UserError(f"{where}: git tracks it, as all that the project ships; git rm removes it")
    if runs := find_runs(outputs, exp):
        raise UserError(f"{where}: has runs in {outputs} ({len(runs)}); remove these first")
    if users := [*_users(path, "*.yaml", "compare_to"), *_users(path, "studies/*.yaml", "base")]:
        raise UserError(f"{where}: is {', '.join(users)}; delete or change that first")
    target = outputs / TRASH / time_stamp() / "params" / path.name
    _move({path: target})
    return target


def restore_runs(names: list[str], outputs: Path | None = None) -> list[Path]:
    """Bring back runs, all or none: of each name the one removed last; returns their folders.

    Args:
        names: As runs.find.find_run takes them; also the paths that the runs had.

    Raises:
        UserError: The trash has no such run, its folder exists again, or it cannot be moved.
    """
    return _restore(dict(_removed_run(name, outputs or config.outputs_dir()) for name in names))


def restore_last(outputs: Path) -> list[Path]:
    """Bring back the runs, or the experiment, of the last removal, all or none.

    Returns:
        Their paths.

    Raises:
        UserError: The trash is empty, one of the paths exists again, or cannot be moved.
    """
    removed = [*removed_runs(outputs), *(outputs / TRASH).glob("*/params/*.yaml")]
    if not removed:
        raise UserError("the trash is empty: nothing was removed")
    moment = max(path.parts[-3] for path in removed)
    last = sorted(path for path in removed if path.parts[-3] == moment)
    return _restore(
        {
            path: config.experiment_path(path.stem)
            if path.suffix == ".yaml"
            else outputs / run_name(path)
            for path in last
        }
    )


def removed_runs(outputs: Path) -> list[Path]:
    """Return the run folders in the trash, the one removed last first."""
    return sorted((outputs / TRASH).glob("*/*/seed*"), reverse=True)


def _removed_run(name: str, root: Path) -> tuple[Path, Path]:
    """Return where the run of a name lies that was removed last, and the folder that it had.

    As in runs.find.find_run, an experiment comes before its rehearsals.
    """
    named = [path for path in removed_runs(root) if matches_run(name, path)]
    if named:
        path = min(named, key=lambda path: "+" in path.parent.name)  # of equal ones the first
        return path, root / run_name(path)
    given = Path(name).absolute()
    for path in removed_runs(given.parent.parent):  # also of another outputs folder, as a study's
        if run_name(path) == run_name(given):
            return path, given
    raise UserError(f"{root / TRASH}: no removed run is called {name!r}")


def _restore(moves: dict[Path, Path]) -> list[Path]:
    """Move runs or experiments out of the trash, all or none; returns the new paths."""
    for path, target in moves.items():
        if target.exists():
            raise UserError(f"{target}: exists again; remove it first, or keep the one in {path}")
    _move(moves)
    for path in moves:
        _remove_if_empty(path.parent)
        _remove_if_empty(path.parent.parent)
    return list(moves.values())


def _users(path: Path, pattern: str, key: str) -> list[str]:
    """Return `KEY of NAME` for the files beside an experiment that name it so."""
    users = []
    for file in sorted(path.parent.glob(pattern)):
        with contextlib.suppress(UserError):  # a broken file names nothing
            if config.read_yaml(file).get(key) == path.stem:
                users.append(f"{key} of {file.stem}")
    return users


def _move(moves: dict[Path, Path]) -> None:
    """Move files and folders, also to another disk; where one cannot be moved, none is.

    Raises:
        UserError: One cannot be moved. Those before it were moved back.
        OSError: One of these cannot be moved back.
    """
    with contextlib.ExitStack() as undo:
        for path, target in moves.items():
            with as_user_error(path, f"cannot be moved to {target}", "; nothing was moved"):
                target.parent.mkdir(parents=True, exist_ok=True)
                _rename(path, target)
            undo.callback(_rename, target, path)
        undo.pop_all()


def _rename(path: Path, target: Path) -> None:
    """Rename a file or folder; copy and delete it only where `target` is on another disk."""
    try:
        os.rename(path, target)
    except OSError as error:
        if error.errno != errno.EXDEV:  # shutil.move would copy what it may not delete, too
            raise
        shutil.move(path, target)


def _remove_if_empty(folder: Path) -> None:
    if folder.is_dir() and not any(folder.iterdir()):
        folder.rmdir()
