"""Open the runs that a user names, and group the seeds of an arm."""

from collections.abc import Sequence
from pathlib import Path

from oelm_lib.arms import arm_name
from oelm_lib.errors import UserError
from oelm_lib.runs.find import find_run, find_runs
from oelm_lib.runs.names import arm_id, is_glob
from oelm_lib.training.trained import Trained, open_trained


def find_named_runs(runs: str) -> list[Path]:
    """Return the folders of runs, each once.

    Args:
        runs: Names as runs.find.find_run takes them, and globs of these, separated by spaces. A
            glob without `+` leaves rehearsals out.

    Raises:
        UserError: No run has one of the names, or none matches the globs.
    """
    paths: list[Path] = []
    for name in runs.split():
        paths += find_runs(None, [name], rehearsals=False) if is_glob(name) else [find_run(name)]
    if not paths:
        raise UserError(
            f"runs = {runs!r}: no run has this name; train one (make demo), or see oelm status"
        )
    return list(dict.fromkeys(paths))


def open_arms(runs: str) -> list[Trained]:
    """Open the last checkpoint of each run; the first run is the reference of the others.

    Args:
        runs: As find_named_runs takes them.

    Raises:
        UserError: No run has this name, or it has no checkpoint.
    """
    return [open_trained(path) for path in find_named_runs(runs)]


def arm_of(run: Trained) -> str:
    """Return the name of the arm that a run belongs to."""
    return arm_name(run.config)


def run_label(run: Trained) -> str:
    """Return arm and run, which tells any two runs apart."""
    return f"{arm_of(run)} ({arm_id(run.path.parent.name)}, seed {run.seed})"


def runs_by_arm(runs: Sequence[Trained]) -> dict[str, list[Trained]]:
    """Return the runs of each arm under the shortest name that tells the arms apart."""
    folders = {run.path.parent.name: arm_of(run) for run in runs}
    names = list(folders.values())
    grouped: dict[str, list[Trained]] = {}
    for run in runs:
        folder = run.path.parent.name
        name = folders[folder]
        if names.count(name) > 1:
            name = f"{name} ({arm_id(folder)})"
        grouped.setdefault(name, []).append(run)
    return grouped


def runs_by_name(runs: Sequence[Trained]) -> dict[str, Trained]:
    """Return name -> run: the arm, or where an arm has several runs, the run and its step."""
    named = {}
    for arm, members in runs_by_arm(runs).items():
        for run in members:
            name = arm if len(members) == 1 else f"{run_label(run)}, step {run.step:,}"
            named[name] = run
    return named


def one_seed_each(runs: Sequence[Trained], count: int | None = None) -> list[Trained]:
    """Return the first run of each arm, of the first `count` arms."""
    return [members[0] for members in runs_by_arm(runs).values()][:count]
