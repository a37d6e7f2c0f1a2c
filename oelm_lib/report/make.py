"""Make the page of what a user names: a notebook, a run, experiments, or a standard page."""

import contextlib
import hashlib
import re
from pathlib import Path

from oelm_lib import config
from oelm_lib.config.messages import did_you_mean
from oelm_lib.errors import UserError
from oelm_lib.report.notebook import KERNEL_DIED, execute
from oelm_lib.report.page import export
from oelm_lib.runs.find import find_run, find_runs, unknown_names
from oelm_lib.runs.names import (
    arm_id,
    command_line,
    experiment_of,
    is_glob,
    parse_patterns,
)
from oelm_lib.runs.reading import read_or_none, read_summary, state
from oelm_lib.runs.schema import ACTIVE
from oelm_lib.study.plan import study_names

DEMO = "DEMO-*"
STANDARD = {
    "compare": {"exps": DEMO, "baseline": "", "outputs": ""},
    "explore": {
        "runs": f"{DEMO}/seed42",
        "prompt": "Lily was a brave baker. One day Lily found a small lantern."
        " The baker was happy.",
    },
    "bench": {"results": ""},
    "gpu": {"results": ""},
}
"""Page -> parameters of its notebook, which replace the values saved in it."""
ON_TERMINAL = {"disable": None, "leave": False}
"""Options of tqdm: one line on stderr if that is a terminal, which is cleared at the end."""
MOST_SLUG = 80
"""Most characters of a page's name that come from what a user typed; file systems take 255."""


def report(target: str | Path, baseline: str | None = None, runs: str | None = None) -> Path:
    """Make a page and return its path.

    Args:
        target: An executed notebook, a run (its folder, or <ID>/seed<k>), a name of STANDARD, a
            study, or experiment ids or globs to compare. All but the first two are executed into
            the outputs folder first.
        baseline: Experiment that a comparison is judged against; default: each experiment's own
            compare_to. Its finished runs are compared whether or not the target names them. With
            a baseline, `compare` makes the same page as `DEMO-*` does.
        runs: Runs of the page `explore`, separated by spaces; default: those of the standard page.

    Raises:
        UserError: Nothing has this name, the notebook failed, the baseline has no finished run, or
            the target takes no baseline or no runs.
    """
    path, name = Path(target), str(target)
    is_notebook, folder = path.suffix == ".ipynb", _run_folder(name)
    is_page = name in STANDARD or name in study_names()
    is_comparison = name == "compare" or not (is_notebook or folder or is_page)
    if runs is not None and name != "explore":
        raise UserError(f"--runs belongs to the page explore, not to {name}; leave it out")
    if baseline is not None and not is_comparison:
        raise UserError(f"--baseline belongs to comparisons, {name} is none; leave it out")
    if is_notebook:
        return export(path)
    if folder:
        return _export_run(folder)
    options = ["--baseline", baseline] if baseline is not None else []
    options += ["--runs", runs] if runs is not None else []
    command = command_line(["report", name, *options])
    if name in study_names():
        return _make("study", {"name": name}, f"study_{name}", command)
    if name in STANDARD and not baseline:
        return _make_standard(name, runs, command)
    return _compare(DEMO if name == "compare" else name, baseline, command)


def _run_folder(name: str) -> Path | None:
    """Return the run folder that a target names, by its path or as <ID>/seed<k>; else None."""
    path = Path(name)
    if (path / "config.yaml").is_file():
        return path
    if "/" in name and path.suffix != ".ipynb" and not path.exists():
        return find_run(name)
    return None


def _make_standard(name: str, runs: str | None, command: str) -> Path:
    """Make a page of STANDARD; that of runs that a user chose has a name of its own."""
    page, parameters = name, STANDARD[name]
    if runs is not None:
        from oelm_lib.explore.arms import find_named_runs  # torch

        find_named_runs(runs)  # a mistake is told before the notebook starts
        page, parameters = f"explore_{page_slug(runs)}", parameters | {"runs": runs}
    elif name in ("compare", "explore"):
        _check_finished([DEMO])
    elif name == "bench" and not any(config.outputs_dir().glob("bench_*.json")):
        raise UserError("no result of `oelm bench` yet; measure: oelm bench")
    return _make(name, parameters, page, command)


def _export_run(path: Path) -> Path:
    """Make the page of a run folder."""
    if (path / "train.ipynb").is_file():
        return export(path / "train.ipynb")
    if (current := state(path)) != "done":
        when = "when it ends under" if current in ("queued", *ACTIVE) else "once it is continued by"
        raise UserError(f"{path}: {current}; its page is made {when} `oelm run`: oelm logs {path}")
    raise UserError(
        f"{path}: no train.ipynb, since this run was not made by `oelm run`;"
        " compare it: oelm report ID"
    )


def _compare(target: str, baseline: str | None, command: str) -> Path:
    """Make the page that compares the experiments, or rehearsals, that a user names."""
    patterns, pages = parse_patterns(target), [*STANDARD, *study_names()]
    unknown = unknown_names(patterns)
    if unknown or not patterns:
        near = did_you_mean(target, [*pages, *config.experiment_ids()])
        raise UserError(
            f"{' '.join(unknown) or repr(target)}: not an executed notebook, a run folder or an"
            f" experiment{near}; use X.ipynb, outputs/<ID>_<slug>/seed42, {', '.join(pages)}, or"
            " ids and globs of experiments (`oelm run` lists them)"
        )
    if baseline and not any(_is_of(run, baseline) for run in find_runs()):
        baseline = config.find_id(baseline)
    _check_finished(patterns)
    exps = " ".join([*patterns, *_unnamed_baselines(patterns, baseline)])
    parameters = {"exps": exps, "baseline": baseline or "", "outputs": ""}
    words = [*patterns, *(["vs", baseline] if baseline else [])]
    return _make("compare", parameters, f"compare_{page_slug('_'.join(words))}", command)


def _unnamed_baselines(patterns: list[str], baseline: str | None) -> list[str]:
    """Return the arms that the named ones are judged against and that no pattern names.

    A rehearsal's baseline is the one with the same overrides, or the experiment.

    Args:
        baseline: The baseline of all arms; default each experiment's compare_to.

    Raises:
        UserError: `baseline` has no finished run that an arm may be judged against.
    """
    named, known = find_runs(None, patterns, rehearsals=False), find_runs()
    found: dict[str, None] = {}
    for arm in dict.fromkeys(run.parent.name for run in named):
        own, overrides = baseline or _compare_to(arm), _overrides_hash(arm)
        if own is None or any(_is_of(run, own) for run in named):
            continue
        runs = [run for run in known if _is_of(run, own) and read_or_none(read_summary, run)]
        folders = {_overrides_hash(run.parent.name): run.parent.name for run in runs}
        folder = folders.get(overrides) or folders.get("") or folders.get(_overrides_hash(own))
        if folder is not None:
            found[arm_id(folder)] = None
        elif baseline:
            command = command_line(["run", experiment_of(baseline)])
            raise UserError(f"no finished run of the baseline {baseline}; train: {command}")
    return list(found)


def _overrides_hash(folder: str) -> str:
    """Return the hash in the name of a rehearsal's folder, <ID>_<slug>+<hash>; else ""."""
    return folder.partition("+")[2]


def _compare_to(arm: str) -> str | None:
    """Return compare_to of the experiment of an arm's folder; None without one, or its file."""
    with contextlib.suppress(UserError):
        return config.load_config(experiment_of(arm)).compare_to
    return None


def _is_of(run: Path, arm: str) -> bool:
    """Return whether a run is of an arm that is given as experiment id or as folder."""
    return arm in (run.parent.name, experiment_of(run.parent.name))


def _check_finished(patterns: list[str]) -> None:
    """Raise UserError where no run of these experiments, or globs, has a result."""
    runs = find_runs(None, patterns, rehearsals=False)
    if not any(read_or_none(read_summary, run) for run in runs):
        command = command_line(["run", *patterns])
        raise UserError(f"no finished run of {', '.join(patterns)}; train: {command}")


def page_slug(text: str) -> str:
    """Return text as part of a file name.

    A long text, or one with a glob other than `-*`, ends with a hash, so that the pages of `DEMO-?`
    and `DEMO-*` differ.
    """
    slug = re.sub(r"[^A-Za-z0-9+-]+", "_", text).strip("_")
    if len(slug) <= MOST_SLUG and not is_glob(text.replace("-*", "-")):
        return slug
    return f"{slug[: MOST_SLUG - 9]}_{hashlib.sha256(text.encode()).hexdigest()[:8]}"


def _make(notebook: str, parameters: dict[str, str], name: str, command: str) -> Path:
    """Execute a notebook into the outputs folder and export it."""
    from nbclient.exceptions import DeadKernelError
    from papermill.exceptions import PapermillExecutionError

    path = config.outputs_dir() / f"{name}.ipynb"
    path.parent.mkdir(parents=True, exist_ok=True)
    progress = {"desc": f"notebooks/{notebook}.ipynb"} | ON_TERMINAL
    try:
        execute(notebook, path, parameters, command, progress)
    except PapermillExecutionError as error:
        page = export(path)
        raise UserError(
            f"{page}: the notebook {notebook} failed: {error.ename}: {error.evalue};"
            " the page shows where"
        ) from None
    except DeadKernelError:
        path.unlink(missing_ok=True)  # papermill has marked all of its cells as completed
        raise UserError(f"{path}: {KERNEL_DIED}; free memory, then: {command}") from None
    return export(path)
