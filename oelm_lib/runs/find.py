"""Find run folders: by the names that users type, and by globs of experiments."""

import os
import re
from collections.abc import Callable, Iterable
from pathlib import Path

from oelm_lib import config
from oelm_lib.config.messages import did_you_mean
from oelm_lib.errors import UserError
from oelm_lib.runs.names import (
    experiment_of,
    matches_run,
    matching_ids,
    parse_patterns,
    run_name,
    seed_of,
)
from oelm_lib.runs.reading import state
from oelm_lib.runs.schema import ACTIVE

SEED_FOLDER = re.compile(r"seed(0|[1-9][0-9]*)", re.ASCII)
GIVEN_FOLDER = re.compile(rf"{SEED_FOLDER.pattern}(\.[0-9-]+)?", re.ASCII)
"""A run folder that may be given by its path: also one that `--fresh` set aside."""


def find_runs(
    outputs: Path | str | None = None,
    exps: list[str] | str | None = None,
    rehearsals: bool = True,
) -> list[Path]:
    """Return the run folders `<outputs>/<ID>_<slug>[+hash]/seed<k>`, sorted.

    Args:
        outputs: Default: config.outputs_dir().
        exps: Names or globs as names.matches_run takes them (a list, or text separated by spaces
            or commas), e.g. `*+*` for all rehearsals; default all.
        rehearsals: Whether a name without `+` means an experiment's rehearsals too.
    """
    root = Path(outputs) if outputs else config.outputs_dir()
    patterns = parse_patterns(exps)
    paths = [
        path
        for path in root.glob("*/seed*")
        if SEED_FOLDER.fullmatch(path.name)
        and any(matches_run(pattern, path, rehearsals) for pattern in patterns)
        and path.is_dir()
    ]
    return sorted(paths, key=lambda path: (path.parent.name, seed_of(path)))


def find_run(
    name: str,
    outputs: Path | str | None = None,
    notify: Callable[[str], None] | None = None,
) -> Path:
    """Return the run folder of a path, `<ID>`, `<ID>/seed<k>`, or the same with the folder's name.

    `demo-02` and `params/DEMO-02.yaml` mean DEMO-02. An experiment comes before its rehearsals.

    Args:
        notify: Called with one line if the name has several seeds; the lowest is then returned.
            Without it, several seeds are an error.

    Raises:
        UserError: No run or several runs have this name.
    """
    named = _runs_named(name, outputs)
    folders = {path.parent for path in named.values()}
    if len(named) > 1 and (notify is None or len(folders) > 1):
        raise UserError(
            f"{len(named)} runs are called {name!r}: {', '.join(list(named)[:3])}"
            f"{', ...' if len(named) > 3 else ''}; name one as FOLDER/seed<k>, see oelm status"
        )
    shown, path = next(iter(named.items()))
    if len(named) > 1:
        notify(f"{name} has {len(named)} seeds; using the lowest, {shown}")
    return path


def unknown_names(names: list[str], outputs: Path | str | None = None) -> list[str]:
    """Return the names and globs that mean no experiment and no run."""
    return [name for name in names if not matching_ids([name]) and not find_runs(outputs, [name])]


def check_names(names: list[str], outputs: Path | str | None = None) -> None:
    """Raise UserError for the first name or glob that means no experiment and no run."""
    if unknown := unknown_names(names, outputs):
        near = _near(unknown[0], outputs, config.experiment_ids())
        raise UserError(
            f"no experiment and no run is called {unknown[0]!r}{near}; `oelm run` lists the"
            " experiments, `oelm status` the runs"
        )


def find_active_runs(name: str, outputs: Path | str | None = None) -> list[Path]:
    """Return the runs with a name, as `find_run` takes it, that are being trained.

    A name with one run means that run, whatever its state. Raises UserError for no run.
    """
    paths = list(_runs_named(name, outputs).values())
    active = [path for path in paths if state(path) in ACTIVE]
    if len(paths) > 1 and not active:
        raise UserError(f"none of the {len(paths)} runs called {name!r} is being trained")
    return active or paths


def _runs_named(name: str, outputs: Path | str | None) -> dict[str, Path]:
    """Return `<folder>/seed<k>` -> path of the runs with a name, lowest seeds first.

    The path of a run folder means that one.

    Raises:
        UserError: There is none.
    """
    if Path(name).is_dir() and GIVEN_FOLDER.fullmatch(Path(name).name):
        return {name: Path(os.path.abspath(name))}  # without "..", which would pass for the arm
    named = {run_name(path): path for path in find_runs(outputs, [name])}
    if not named:
        raise UserError(f"no run is called {name!r}{_near(name, outputs)}; see oelm status")
    experiments = {run: path for run, path in named.items() if "+" not in run}
    return experiments or named


def _near(name: str, outputs: Path | str | None, others: Iterable[str] = ()) -> str:
    """Return " (did you mean X?)" for the runs, or others, with the nearest names, or ""."""
    found = [f"{experiment_of(path.parent.name)}/{path.name}" for path in find_runs(outputs)]
    known = list(dict.fromkeys([*others, *found]))
    return did_you_mean(name.upper().replace("SEED", "seed"), known)
