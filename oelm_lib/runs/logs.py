"""Find a run by its name, and follow its log."""

import time
from collections.abc import Iterator
from pathlib import Path

from oelm_lib.errors import UserError
from oelm_lib.runs.reading import find_runs, record_file, state
from oelm_lib.runs.schema import ACTIVE

LOGS = ("training.log", "notebook.log")
POLL_SECONDS = 0.5


def find_run(name: str, outputs: Path | str | None = None) -> Path:
    """Return the run folder of a path, `<ID>`, `<ID>/seed<k>`, or `<folder>[/seed<k>]`.

    A run of the experiment itself comes before overridden ones.

    Raises:
        UserError: No run or several runs have this name.
    """
    if Path(name).is_dir() and Path(name).name.startswith("seed"):
        return Path(name)
    matches = [path for path in find_runs(outputs) if name.strip("/") in _names(path)]
    exact = [path for path in matches if "+" not in path.parent.name]
    matches = exact if len(exact) == 1 else matches
    if len(matches) == 1:
        return matches[0]
    if matches:
        runs = ", ".join(f"{path.parent.name}/{path.name}" for path in matches)
        raise UserError(
            f"{len(matches)} runs are called {name!r}: {runs}; name one as FOLDER/seed<k>,"
            " see oelm status"
        )
    raise UserError(f"no run is called {name!r}; name one as FOLDER/seed<k>, see oelm status")


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


def _names(path: Path) -> tuple[str, ...]:
    """All names of a run folder."""
    folder = path.parent.name
    exp = folder.split("_")[0]
    return exp, folder, f"{exp}/{path.name}", f"{folder}/{path.name}"
