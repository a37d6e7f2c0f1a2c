"""Find a run by its name, and follow its log."""

import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from oelm_lib.config.messages import did_you_mean
from oelm_lib.errors import UserError
from oelm_lib.runs.reading import find_runs, record_file, state
from oelm_lib.runs.schema import ACTIVE

LOGS = ("training.log", "notebook.log")
POLL_SECONDS = 0.5


def find_run(
    name: str,
    outputs: Path | str | None = None,
    notify: Callable[[str], None] | None = None,
) -> Path:
    """Return the run folder of a path, `<ID>`, `<ID>/seed<k>`, or the same with the folder's name.

    `demo-02` and `params/DEMO-02.yaml` mean DEMO-02. An experiment comes before its rehearsals.

    Args:
        notify: Takes one line. Given, a name with several seeds means the lowest, and the line
            says so.

    Raises:
        UserError: No run or several runs have this name.
    """
    matches = _runs_named(name, outputs)
    folders = {path.parent for path in matches.values()}
    if len(matches) > 1 and (notify is None or len(folders) > 1):
        raise UserError(
            f"{len(matches)} runs are called {name!r}: {', '.join(list(matches)[:3])}"
            f"{', ...' if len(matches) > 3 else ''}; name one as FOLDER/seed<k>, see oelm status"
        )
    shown, path = next(iter(matches.items()))
    if len(matches) > 1:
        notify(f"{name} has {len(matches)} seeds; using the lowest, {shown}")
    return path


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
    if Path(name).is_dir() and Path(name).name.startswith("seed"):
        return {name: Path(name)}
    wanted = re.sub(r"^params/|\.yaml$", "", name.strip("/"))
    exp_wanted, slash, seed_wanted = wanted.partition("/")
    upper_wanted = exp_wanted.upper() + slash + seed_wanted
    matches = {}
    for path in find_runs(outputs):
        folder, seed = path.parent.name, path.name
        exp = folder.split("_")[0]
        if upper_wanted in (exp, f"{exp}/{seed}") or wanted in (folder, f"{folder}/{seed}"):
            matches[f"{folder}/{seed}"] = path
    if not matches:
        raise UserError(f"no run is called {name!r}{_near(name, outputs)}; see oelm status")
    experiments = {run: path for run, path in matches.items() if "+" not in run}
    return experiments or matches


def _near(name: str, outputs: Path | str | None) -> str:
    """Return " (did you mean X?)" for the runs with the nearest names, or ""."""
    known = [f"{path.parent.name.split('_')[0]}/{path.name}" for path in find_runs(outputs)]
    return did_you_mean(name.upper().replace("SEED", "seed"), list(dict.fromkeys(known)))


def log_lines(run: Path, last: int, follow: bool = False) -> Iterator[str]:
    """Yield the last lines of a run's log, then with `follow` new ones until the run ends.

    Raises:
        UserError: There is no log.
    """
    paths = (record_file(run, name) for name in LOGS)
    path = next((path for path in paths if path.exists()), None)
    if path is None:
        raise UserError(f"{run}: no {' or '.join(LOGS)} yet; see oelm status")
    with open(path, encoding="utf-8", errors="replace") as file:
        yield from file.read().splitlines()[-last:] if last else ()
        while follow:
            # Asked before reading, so that the last lines of a run that ends now are read.
            active = state(run) in ACTIVE
            size = path.stat().st_size
            if size < file.tell():  # the run continued from an earlier checkpoint
                file.seek(size)
            yield from file.read().splitlines()
            if not active:
                yield f"({state(run)})"
                return
            time.sleep(POLL_SECONDS)
