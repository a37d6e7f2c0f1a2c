"""Find a run by what people call it, and follow its log."""

import time
from collections.abc import Iterator
from pathlib import Path

from oelm_lib.errors import UserError
from oelm_lib.runs.reading import ACTIVE, find_runs, state

LOGS = ("training.log", "notebook.log")
POLL_SECONDS = 0.5


def find_run(name: str, outputs: Path | str | None = None) -> Path:
    """The run folder of a path, `<ID>`, `<ID>/seed<k>`, or the same with the folder's name.

    Raises:
        UserError: No run or several runs have this name.
    """
    if Path(name).is_dir() and Path(name).name.startswith("seed"):
        return Path(name)
    found = {}
    for path in find_runs(outputs):
        exp, folder = path.parent.name.split("_")[0], path.parent.name
        if name.strip("/") in (exp, folder, f"{exp}/{path.name}", f"{folder}/{path.name}"):
            found[f"{folder}/{path.name}"] = path
    exact = {shown: path for shown, path in found.items() if "+" not in shown}
    found = exact if len(exact) == 1 else found
    if len(found) != 1:
        what = (
            f"{len(found)} runs are called {name!r}: {', '.join(found)}"
            if found
            else f"no run is called {name!r}"
        )
        raise UserError(f"{what}; name one as FOLDER/seed<k>, see oelm status")
    return next(iter(found.values()))


def log_lines(run: Path, last: int, follow: bool = False) -> Iterator[str]:
    """The last lines of a run's log, then with `follow` every new one until the run ends.

    Raises:
        UserError: There is no log.
    """
    path = next((run / name for name in LOGS if (run / name).is_file()), None)
    if path is None:
        raise UserError(f"{run}: no {' or '.join(LOGS)} yet; see oelm status")
    with open(path, encoding="utf-8", errors="replace") as file:
        yield from file.read().splitlines()[-last:] if last else ()
        while follow:
            # Asked before reading: what a run writes before it ends is still shown.
            active = state(run) in ACTIVE
            if path.stat().st_size < file.tell():  # the run went on from an earlier checkpoint
                file.seek(path.stat().st_size)
            yield from file.read().splitlines()
            if not active:
                yield f"({state(run)})"
                return
            time.sleep(POLL_SECONDS)
