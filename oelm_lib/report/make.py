"""Make the page of what a user names: a notebook, a run, experiments, or a standard page."""

import fnmatch
import re
import shlex
from pathlib import Path

from oelm_lib import config
from oelm_lib.errors import UserError
from oelm_lib.report.notebook import execute
from oelm_lib.report.page import export
from oelm_lib.runs.names import experiment_of, parse_patterns
from oelm_lib.runs.reading import find_runs, state
from oelm_lib.runs.schema import ACTIVE
from oelm_lib.study.plan import study_names

STANDARD = {
    "compare": {"exps": "DEMO-*", "baseline": "", "outputs": ""},
    "explore": {
        "runs": "DEMO-*/seed42",
        "prompt": "Lily was a brave baker. One day Lily found a small lantern."
        " The baker was happy.",
    },
    "bench": {"results": ""},
    "gpu": {"results": ""},
}
"""Parameters of the pages that are made by name, whatever values the notebook was saved with."""


def report(target: str | Path, baseline: str | None = None, runs: str | None = None) -> Path:
    """Make a page and return its path.

    Args:
        target: An executed notebook, a run folder, a name of STANDARD, a study, or experiment ids
            or globs to compare. All but the first two are executed into the outputs folder first.
        baseline: Experiment that a comparison is judged against; default: that of the standard
            page, or each experiment's own compare_to.
        runs: Runs of the page `explore`, separated by spaces; default: those of the standard page.

    Raises:
        UserError: Nothing has this name, the notebook failed, or the target takes no baseline or
            no runs.
    """
    path, name = Path(target), str(target)
    is_comparison = name == "compare" or not (
        name in (*STANDARD, *study_names())
        or path.suffix == ".ipynb"
        or (path / "config.yaml").is_file()
    )
    if baseline is not None and not is_comparison:
        raise UserError(f"--baseline belongs to comparisons, {name} is none; leave it out")
    if runs is not None:
        if name != "explore":
            raise UserError(f"--runs belongs to the page explore, not to {name}; leave it out")
        slug = re.sub(r"[^A-Za-z0-9-]+", "_", f"explore_{runs}").strip("_")[:80]
        return _make(name, STANDARD[name] | {"runs": runs}, slug, None, runs=runs)
    if path.suffix == ".ipynb":
        return export(path)
    if (path / "config.yaml").is_file():
        return _export_run(path)
    if name in study_names():
        return _make("study", {"name": name}, f"study_{name}", baseline, name)
    if name in STANDARD:
        chosen = {} if baseline is None else {"baseline": baseline}
        return _make(name, STANDARD[name] | chosen, name, baseline)
    return _compare(name, baseline)


def _export_run(path: Path) -> Path:
    """The page of a run folder."""
    if not (path / "train.ipynb").is_file():
        if (current := state(path)) in ACTIVE:
            raise UserError(f"{path}: {current}; its page is made when it ends: oelm logs {path}")
        raise UserError(
            f"{path}: no train.ipynb, since this run was not made by `oelm run`;"
            " compare it: oelm report ID"
        )
    return export(path / "train.ipynb")


def _compare(target: str, baseline: str | None) -> Path:
    """The page that compares the experiments a user names."""
    patterns = parse_patterns(target)
    ids = config.experiment_ids()
    known = {*ids, *(experiment_of(run.parent.name) for run in find_runs())}
    if not any(fnmatch.fnmatch(exp, pattern) for exp in known for pattern in patterns):
        raise UserError(
            f"{target}: not an executed notebook, a run folder or an experiment; use X.ipynb,"
            f" outputs/<ID>_<slug>/seed42, {', '.join([*STANDARD, *study_names()])},"
            f" or a glob of {', '.join(ids)}"
        )
    if baseline and baseline not in known:
        raise UserError(f"--baseline {baseline}: no such experiment; use one of {', '.join(ids)}")
    parameters = {"exps": " ".join(patterns), "baseline": baseline or "", "outputs": ""}
    words = [*patterns, *(["vs", baseline] if baseline else [])]
    name = "compare_" + re.sub(r"[^A-Za-z0-9-]+", "_", "_".join(words)).strip("_")
    return _make("compare", parameters, name, baseline, target)


def _make(
    notebook: str,
    parameters: dict[str, str],
    name: str,
    baseline: str | None,
    target: str | None = None,
    runs: str | None = None,
) -> Path:
    """Execute a notebook into the outputs folder and export it."""
    from papermill.exceptions import PapermillExecutionError

    command = ["oelm", "report", target or notebook]
    command += ["--baseline", baseline] if baseline is not None else []
    command += ["--runs", runs] if runs is not None else []
    path = config.outputs_dir() / f"{name}.ipynb"
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        execute(notebook, path, parameters, shlex.join(command))
    except PapermillExecutionError as error:
        raise UserError(
            f"{export(path)}: the notebook {notebook} failed: {error.ename}: {error.evalue};"
            " the page shows where"
        ) from None
    return export(path)
