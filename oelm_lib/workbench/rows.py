"""Rows of the workbench's table: every run, and every experiment that has none."""

import functools
import os
from pathlib import Path
from typing import Any

from oelm_lib.arms import arm_name
from oelm_lib.config import (
    Experiment,
    experiment_ids,
    load_config,
    outputs_dir,
)
from oelm_lib.errors import UserError
from oelm_lib.runs.find import find_runs
from oelm_lib.runs.names import experiment_of, seed_of
from oelm_lib.runs.notes import FILE, Notes, read_notes
from oelm_lib.runs.overview import overview
from oelm_lib.runs.reading import read_config, recorded_experiment
from oelm_lib.runs.schema import ACTIVE
from oelm_lib.workbench.launches import starting_runs

FILES = ("status.json", "summary.json", "config.yaml", FILE)
"""Files of a run folder; if one of them changes, the row of the run is read again."""
NOT_RUN = "not run"
"""State of an experiment without a run."""
STARTING = "starting"
"""State of a run whose command has begun, and whose process has written nothing yet."""
LIVE = (*ACTIVE, "queued", STARTING)
"""States that change without a change of the folder's files."""
Row = dict[str, Any]


class RunRows:
    """Rows of all runs and experiments; `read` opens only the folders that changed.

    Args:
        outputs: Folder of the run folders; "": the default. Kept as an absolute path.
    """

    def __init__(self, outputs: Path | str = ""):
        self.outputs = Path(outputs).absolute() if outputs else outputs_dir()
        self._stamps: dict[Path, tuple] = {}
        self._rows: dict[Path, Row] = {}
        self._records: dict[str, tuple[float, Path]] = {}
        self._last: list[Row] = []

    def read(self) -> list[Row]:
        """Return the rows as they are now.

        Returns:
            Rows of runs.overview.overview with `id seed arm corpus compare_to title tags note
            hidden changed` (`changed`: seconds since 1970 of the last status); an experiment
            without a run has the state NOT_RUN and no `path`. The same list as before where
            nothing changed.
        """
        stamps = {path: _stamp(path) for path in find_runs(self.outputs)}
        self._records = _newest_records(stamps)
        experiments = {exp: _experiment_facts(exp) for exp in experiment_ids()}
        stale = {experiment_of(path.parent.name) for path in stamps if self._is_stale(path, stamps)}
        # An arm's gap changes with its baseline.
        stale |= {exp for exp, facts in experiments.items() if facts["compare_to"] in stale}
        known = {path: row for path, row in self._rows.items() if path in stamps}
        if stale:
            rows = overview(sorted(stale), self.outputs)
            known |= {Path(row["path"]): self._complete(row) for row in rows}
        self._rows = known
        self._stamps = {path: stamp for path, stamp in stamps.items() if path in self._rows}
        starting = starting_runs(self.outputs)
        runs = [
            self._rows[path] | ({"state": STARTING} if path in starting else {})
            for path in self._stamps
        ]
        started = {row["id"] for row in runs}
        idle = [
            {"run": exp, "id": exp, "path": "", "state": NOT_RUN, "changed": 0.0, **facts}
            for exp, facts in experiments.items()
            if exp not in started
        ]
        rows = [*runs, *idle]
        if rows != self._last:
            self._last = rows
        return self._last

    def _is_stale(self, path: Path, stamps: dict[Path, tuple]) -> bool:
        """Return whether the row of a run has to be read again."""
        return stamps[path] != self._stamps.get(path) or self._rows[path]["state"] in LIVE

    def _complete(self, row: Row) -> Row:
        """Add what an overview does not hold: the arm, the corpus and the notes."""
        path = Path(row["path"])
        try:
            notes = read_notes(path)
        except UserError as error:
            notes, row = Notes(), row | {"reason": str(error)}
        exp = experiment_of(path.parent.name)
        return {
            **row,
            **self._run_facts(path, exp),
            "id": exp,
            "seed": seed_of(path),
            "tags": " ".join(notes.tags),
            "note": notes.note,
            "hidden": notes.hidden,
            "changed": modified(path / "status.json"),
        }

    def _run_facts(self, path: Path, exp: str) -> dict[str, Any]:
        """Return _facts of the newest record of a run's arm, or those of its experiment."""
        written, newest = self._records.get(path.parent.name, (0.0, path))
        try:
            return _recorded_facts(newest, written)
        except UserError:
            return _experiment_facts(exp)


@functools.lru_cache(maxsize=1024)
def _recorded_facts(run: Path, written: float) -> dict[str, Any]:
    """Return _facts of a run's config.yaml; `written`, its time, changes when the file does."""
    plain = read_config(run)
    return _facts(recorded_experiment(plain, run))


def _newest_records(stamps: dict[Path, tuple[float, ...]]) -> dict[str, tuple[float, Path]]:
    """Return folder of an arm -> when its latest config.yaml was written, and the run it is of."""
    newest: dict[str, tuple[float, Path]] = {}
    for path, stamp in stamps.items():
        record = stamp[FILES.index("config.yaml")], path
        newest[path.parent.name] = max(newest.get(path.parent.name, record), record)
    return newest


def _experiment_facts(exp: str) -> dict[str, Any]:
    """Return _facts of an experiment's file; where it is broken, empty ones and the reason."""
    try:
        return _facts(load_config(exp))
    except UserError as error:
        facts = dict.fromkeys(("arm", "corpus", "title"), "")
        return facts | {"compare_to": None, "reason": str(error)}


def _facts(experiment: Experiment) -> dict[str, Any]:
    """Return the columns of a row that follow from the experiment alone."""
    return {
        "arm": arm_name(experiment),
        "corpus": experiment.data.corpus,
        "compare_to": experiment.compare_to,
        "title": experiment.label,
    }


def _stamp(path: Path) -> tuple[float, ...]:
    return tuple(modified(f"{path}/{name}") for name in FILES)


def modified(path: Path | str) -> float:
    """Return the time of a file's last change; 0 where there is no file."""
    try:
        return os.stat(path).st_mtime
    except OSError:
        return 0.0
