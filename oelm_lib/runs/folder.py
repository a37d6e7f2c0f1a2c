"""Run folders: opened, checked against what they hold, written by one process."""

import contextlib
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from oelm_lib import config
from oelm_lib.config import Experiment
from oelm_lib.config.messages import shorten
from oelm_lib.data import Corpus, open_corpus
from oelm_lib.errors import UserError
from oelm_lib.files import as_user_error, remedy, time_stamp, write_text
from oelm_lib.runs.corpus_fit import open_fitting_corpus
from oelm_lib.runs.documents import read_documents
from oelm_lib.runs.lock import OTHER_OUTPUTS, RunLock
from oelm_lib.runs.names import run_folder, run_name
from oelm_lib.runs.provenance import describe_changes, session_record, sessions
from oelm_lib.runs.reading import read_config, read_summary, recorded_experiment
from oelm_lib.runs.schema import FORMAT
from oelm_lib.yaml_text import dump_yaml

LARGEST_SEED = 10**18
"""Seeds are below this: a folder cannot be named by a much longer number."""


@dataclass(frozen=True, eq=False)
class Run:
    """One execution of an experiment with one seed."""

    config: Experiment
    seed: int
    corpus: Corpus
    path: Path

    def __fspath__(self) -> str:
        """Return the folder: a Run can be passed wherever a run folder is expected."""
        return str(self.path)

    @property
    def name(self) -> str:
        """<ID>_<slug>[+hash]/seed<k>."""
        return run_name(self.path)

    @property
    def finished(self) -> bool:
        """Whether the run is done; it is then only read."""
        return read_summary(self) is not None

    @property
    def lock(self) -> RunLock:
        """The folder's lock, held while this process may write."""
        return RunLock(self.path)

    def record_session(
        self, step: int, resolved: dict[str, Any], parameters: dict[str, int]
    ) -> list[str]:
        """Record this session in config.yaml; returns warnings of what has changed since the last.

        Args:
            step: Steps done so far; 0 writes a new file.
            resolved: Values of the machine keys: device, precision, threads, compile.
            parameters: Numbers of parameters: total, trainable, frozen.
        """
        session = session_record(step, resolved)
        warnings = []
        if step and (self.path / "config.yaml").is_file():
            plain = read_config(self)
            earlier = sessions(plain)
            if changes := describe_changes(earlier[-1], session):
                warnings.append(f"continues with something changed: {changes}")
            plain["sessions"] = [*earlier, session]
        else:
            plain = self._new_config(session, parameters)
            if step:
                warnings.append("config.yaml was lost: code and versions up to here are unknown")
        write_text(self.path / "config.yaml", dump_yaml(plain), self.lock.check)
        return warnings

    def _new_config(self, session: dict[str, Any], parameters: dict[str, int]) -> dict[str, Any]:
        """Return the config.yaml of a new run: its settings, and the code and machine used."""
        cfg, corpus = self.config, self.corpus
        manifest = corpus.manifest
        return {
            "format": FORMAT,
            "kind": cfg.kind,
            "label": cfg.label,
            "seed": self.seed,
            "experiment": cfg.to_dict(),
            "overrides": cfg.overrides,
            "code": session["code"],
            "versions": session["versions"],
            "resolved": session["resolved"],
            "corpus": {
                "manifest_sha256": corpus.manifest_sha256,
                "sample": manifest["sample"],
                "synthetic": manifest["synthetic"],
                "splits": manifest["splits"],
                "name": corpus.name,
                "tokenizer": corpus.tokenizer,
            },
            "parameters": parameters,
            "created": session["started"],
            "sessions": [session],
        }


def open_run(
    cfg: Experiment,
    seed: int = 42,
    outputs: Path | str | None = None,
    fresh: bool = False,
    test: bool = False,
) -> Run:
    """Open the run of an experiment with a seed: new, to be continued, or finished.

    Prepares the corpus where that is possible, checks that model and data fit each other, and
    acquires the folder's lock unless the run is finished.

    Args:
        cfg: As load_config returns it.
        seed: Repeat of the experiment, at least 0.
        outputs: Folder of the runs; default config.outputs_dir().
        fresh: Rename an existing folder and start over.
        test: Refuse a corpus without a test split, before anything is written.

    Raises:
        UserError: Another process writes the run, it was made with another config or corpus, its
            record is damaged, or data and model do not fit.
    """
    _check_seed(seed)
    if not isinstance(fresh, bool):  # papermill's -p fresh false is the text 'false'
        raise UserError(f"fresh = {fresh!r} should be True or False")
    corpus = open_fitting_corpus(cfg, test)
    path = run_folder(cfg, seed, outputs)
    run = Run(cfg, seed, corpus, path)
    with as_user_error(path, "cannot write here", OTHER_OUTPUTS, exact=True):
        if fresh and path.exists():
            _rename_old(run)
        _check_record(run)
        if not run.finished:
            path.mkdir(parents=True, exist_ok=True)
            _lock_unfinished(run)
    return run


def reopen(path: Path) -> Run:
    """Return the run of a folder, as its config.yaml records it, for reading.

    Raises:
        UserError: config.yaml is broken, or the corpus has other content now.
    """
    plain = read_config(path)
    cfg = recorded_experiment(plain, path / "config.yaml")
    corpus = open_corpus(cfg.data.corpus, cfg.data.tokenizer, cfg)
    if corpus.manifest["splits"] != plain["corpus"].get("splits"):
        raise UserError(
            f"{path}: the corpus {corpus.name} was prepared again since, with other content;"
            " bring the old one back"
        )
    return Run(cfg, plain["seed"], corpus, path)


def config_differences(
    run: Run, science: dict[str, Any], seed: int, splits: dict[str, Any] | None
) -> str:
    """Return how a recorded config, seed and corpus differ from the run's own; "" where equal.

    Args:
        science: Recorded keys that decide the result, as Experiment.science has them.
        seed: Recorded seed.
        splits: Recorded splits of the corpus manifest.
    """
    changed = config.diff_science(science, run.config.science)
    differences = [f"{key} was {old}, is {new}" for key, (old, new) in changed.items()]
    if seed != run.seed:
        differences.append(f"seed was {seed}, is {run.seed}")
    if splits != run.corpus.manifest["splits"]:
        differences.append(
            f"the corpus {run.corpus.name} was prepared again since, with other content"
        )
    return "; ".join(differences)


def disk_error(error: OSError, path: Path) -> UserError:
    """Return the error for a user whose disk refuses a file of a run in progress."""
    return UserError(
        f"{error.filename or path}: {error.strerror or error}; {remedy(error)}, then the same"
        " command continues the run"
    )


def _check_seed(seed: Any) -> None:
    """Raise UserError where a seed is not a whole number that a folder can be named by."""
    if type(seed) is int and 0 <= seed < LARGEST_SEED:
        return
    # Python refuses to print a number of thousands of digits.
    shown = "too large" if type(seed) is int and abs(seed) >= LARGEST_SEED else shorten(seed)
    raise UserError(
        f"seed = {shown} should be a whole number of at least 0 and at most 18 digits, e.g. 42"
    )


def _rename_old(run: Run) -> None:
    """Rename the folder of an earlier run to seed<k>.<time>."""
    old = run.path.with_name(f"{run.path.name}.{time_stamp()}")
    run.lock.acquire()
    try:
        os.rename(run.path, old)
        (old / "lock.json").unlink(missing_ok=True)
    finally:
        run.lock.release()


def _lock_unfinished(run: Run) -> None:
    """Acquire the lock, and keep it where the run is still the same one and not finished."""
    run.lock.acquire()
    with contextlib.ExitStack() as undo:
        undo.callback(run.lock.release)
        _check_record(run)  # another process may have written it before the lock was held
        if not run.finished:
            undo.pop_all()


def _check_record(run: Run) -> None:
    """Check what the folder holds, if anything.

    Raises:
        UserError: A run of another config or corpus, or a result without readable documents.
    """
    if (run.path / "config.yaml").exists():
        _check_same(run)
    if run.finished and (run.path / "documents.npz").exists():
        read_documents(run)  # a damaged file is reported before anything relies on it


def _check_same(run: Run) -> None:
    """Raise UserError where the folder holds a run of another config or corpus."""
    plain = read_config(run)
    before = recorded_experiment(plain, run.path / "config.yaml")
    splits = plain["corpus"].get("splits")
    differences = config_differences(run, before.science, plain["seed"], splits)
    if differences:
        raise UserError(
            f"{run.path}: made with another config ({differences}); go back to it, use overrides,"
            " or start over: oelm run ID --fresh (keeps the old folder under another name)"
        )
