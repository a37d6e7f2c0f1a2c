"""Open the runs that a user names, and group the seeds of an arm."""

from collections.abc import Sequence
from pathlib import Path

from oelm_lib.arms import arm_name
from oelm_lib.errors import UserError
from oelm_lib.runs.find import find_run, find_runs
from oelm_lib.runs.names import arm_id_of, is_glob
from oelm_lib.training.trained import Trained, open_trained


def find_arms(runs: str) -> list[Path]:
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
            f"runs = {runs!r}: no run is called so; train some (make demo), see oelm status"
        )
    return list(dict.fromkeys(paths))


def open_arms(runs: str, which: str = "latest") -> list[Trained]:
    """Open the checkpoints of runs; the first run is the reference of the others.

    Args:
        runs: As find_arms takes them.
        which: Checkpoint, `latest` or `best`.

    Raises:
        UserError: No run has this name, or it has no such checkpoint.
    """
    return [open_trained(path, which) for path in find_arms(runs)]


def name_of(arm: Trained) -> str:
    """Return the name of an arm, without its run."""
    return arm_name(arm.config)


def label(arm: Trained) -> str:
    """Return arm and run, which tells any two runs apart."""
    return f"{name_of(arm)} ({arm_id_of(arm.path.parent.name)}, seed {arm.seed})"


def groups(arms: Sequence[Trained]) -> dict[str, list[Trained]]:
    """Return the seeds of each arm under the shortest name that tells the arms apart."""
    folders = {arm.path.parent.name: name_of(arm) for arm in arms}
    names = list(folders.values())
    grouped: dict[str, list[Trained]] = {}
    for arm in arms:
        folder = arm.path.parent.name
        name = folders[folder]
        if names.count(name) > 1:
            name = f"{name} ({arm_id_of(folder)})"
        grouped.setdefault(name, []).append(arm)
    return grouped


def one_seed_each(arms: Sequence[Trained], count: int | None = None) -> list[Trained]:
    """Return the first seed of each arm, of the first `count` arms."""
    return [seeds[0] for seeds in groups(arms).values()][:count]
