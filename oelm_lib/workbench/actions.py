"""What the buttons do: each calls the function that the command of the same name calls.

An action returns one line for the user, and below it warnings, one a line. It raises UserError
where it cannot be done.
"""

import os
import signal
from pathlib import Path
from typing import Any

from oelm_lib.config import as_text, change_warnings, load_config
from oelm_lib.errors import UserError
from oelm_lib.launch.jobs import make_jobs
from oelm_lib.launch.names import parse_seeds
from oelm_lib.runs.process import is_alive
from oelm_lib.runs.reading import queue_alive, read_config, read_status, state
from oelm_lib.runs.schema import ACTIVE
from oelm_lib.runs.stop import ask_to_stop
from oelm_lib.runs.trash import remove_run, removed_runs, restore_run
from oelm_lib.workbench.launches import start_command


def start_runs(
    exp: str,
    seeds: str | list[int],
    outputs: Path,
    overrides: dict[str, Any] | None = None,
    at_once: int = 1,
    fresh: bool = False,
) -> str:
    """Start the runs of an experiment as `oelm run` does; finished seeds are left out.

    Args:
        seeds: Whole numbers, or text such as "42,43".
        at_once: Concurrent runs.
        fresh: Start anew and keep the old folder under another name; for one seed.

    Raises:
        UserError: A seed is no number, all are done, or one of them runs or waits already.
    """
    chosen = parse_seeds(seeds) if isinstance(seeds, str) else list(seeds)
    folder = outputs / load_config(exp, overrides).folder
    make_jobs([exp], chosen, overrides or {})  # raises what `oelm run` would
    busy = [seed for seed in chosen if _is_busy(folder / f"seed{seed}")]
    if busy:
        names = ", ".join(str(seed) for seed in busy)
        raise UserError(
            f"{exp} seed {names}: runs or waits already; stop it first, or choose other seeds"
        )
    open_seeds = [seed for seed in chosen if fresh or state(folder / f"seed{seed}") != "done"]
    if not open_seeds:
        raise UserError(f"{exp}: every one of these seeds is done; choose another, or start afresh")
    if fresh and len(open_seeds) > 1:
        raise UserError("only one run can be started afresh at a time; select one")
    arguments = ["run", exp, "--seeds", ",".join(map(str, open_seeds))]
    for key, value in (overrides or {}).items():
        arguments += ["--set", as_text({key: value})]
    arguments += ["--workers", str(at_once)] if len(open_seeds) > 1 else []
    launch = start_command(arguments + ["--fresh"] * fresh, outputs)
    warnings = [*change_warnings(exp), *_crowd(outputs, len(open_seeds[:at_once]))]
    return "\n".join([f"Started: {launch.command}.", *warnings])


def continue_runs(paths: list[Path], outputs: Path, at_once: int = 1) -> str:
    """Continue stopped, failed or dead runs from their checkpoints, each with its overrides."""
    _require(paths)
    ended = [path for path in paths if state(path) != "done" and not _is_busy(path)]
    if not ended:
        raise UserError("none of the selected runs is stopped, failed or dead, so none can go on")
    return _start_again(ended, outputs, at_once, fresh=False)


def restart_run(paths: list[Path], outputs: Path) -> str:
    """Start one run anew; its old folder is renamed and kept."""
    if len(paths) != 1:
        raise UserError("only one run can be started afresh at a time; select one")
    return _start_again(paths, outputs, 1, fresh=True)


def stop_runs(paths: list[Path]) -> str:
    """Ask those that train to save and stop; a run that waits has its queue stopped."""
    _require(paths)
    lines = []
    for path in [path for path in paths if _is_busy(path)] or paths[:1]:
        if state(path) == "queued":
            _stop_queue(path)
            lines.append(f"{_name(path)}: its queue was asked to stop, with all its runs")
        else:
            ask_to_stop(path)
            lines.append(f"{_name(path)}: asked to save and stop")
    return "; ".join(dict.fromkeys(lines))


def remove_runs(paths: list[Path]) -> str:
    """Move runs into the trash."""
    _require(paths)
    for path in paths:
        if not path.is_dir():
            raise UserError(f"{_name(path)}: is gone already; nothing was removed")
        remove_run(path)
    return f"Removed: {', '.join(map(_name, paths))}. Undo brings it back."


def undo_remove(outputs: Path) -> str:
    """Bring back the run that was removed last."""
    removed = removed_runs(outputs)
    if not removed:
        raise UserError("the trash is empty: no run was removed")
    return f"{_name(restore_run(_name(removed[0]), outputs))}: is back"


def make_page(target: str, outputs: Path, runs: str = "") -> str:
    """Start `oelm report TARGET`; `runs` names those of the explore page."""
    options = ["--runs", runs] if runs else []
    launch = start_command(["report", target, *options], outputs)
    return f"Started: {launch.command}. Its link stands below when it is made."


def comparison(rows: list[dict[str, Any]]) -> str:
    """Return the target of `oelm report` that compares the arms of these rows.

    Raises:
        UserError: No run is done.
    """
    done = [row for row in rows if row["state"] == "done"]
    if not done:
        raise UserError("none of the selected runs is done, so there is nothing to compare yet")
    names = [row["run"].split("/")[0] if "+" in row["run"] else row["id"] for row in done]
    return " ".join(sorted(set(names)))


def probed(rows: list[dict[str, Any]]) -> str:
    """Return the runs of an explore page: one of each arm, baselines first.

    Raises:
        UserError: No run is done.
    """
    arms: dict[str, str] = {}
    for row in rows:
        if row["state"] == "done":
            arms.setdefault(row["run"].split("/")[0], row["run"])
    if not arms:
        raise UserError("none of the selected runs is done, so there are no weights to look into")
    return " ".join(arms.values())


def run_page(paths: list[Path], outputs: Path) -> str:
    """Start `oelm report RUN` for one run."""
    _require(paths)
    if len(paths) > 1:
        raise UserError("only one run has its page made at a time; select one")
    return make_page(str(paths[0]), outputs)


def export_runs(paths: list[Path], outputs: Path) -> str:
    """Start `oelm export --format csv` for the metrics of runs."""
    _require(paths)
    launch = start_command(["export", *map(str, paths), "--format", "csv"], outputs)
    return f"Started: {launch.command}."


def _start_again(paths: list[Path], outputs: Path, at_once: int, fresh: bool) -> str:
    groups: dict[str, tuple[str, dict[str, Any], list[int]]] = {}
    for path in paths:
        exp, overrides = path.parent.name.split("_")[0], {}
        if state(path) != "queued" and (path / "config.yaml").is_file():
            overrides = read_config(path)["overrides"]
        _, _, seeds = groups.setdefault(path.parent.name, (exp, overrides, []))
        seeds.append(int(path.name.removeprefix("seed")))
    lines = [
        start_runs(exp, seeds, outputs, overrides, at_once, fresh)
        for exp, overrides, seeds in groups.values()
    ]
    return "\n".join(lines)


def _stop_queue(path: Path) -> None:
    """Send the queue that holds a run the signal of Ctrl-C."""
    status = read_status(path) or {}
    if not is_alive(status):
        raise UserError(f"{_name(path)}: its queue does not run here; see oelm status")
    os.kill(status["pid"], signal.SIGINT)


def _is_busy(path: Path) -> bool:
    current = state(path)
    if current == "queued":
        return queue_alive(read_status(path) or {})
    return current in ACTIVE


def _crowd(outputs: Path, added: int) -> list[str]:
    """Return a warning where more runs train than this machine has cores."""
    active = sum(state(path) in ACTIVE for path in outputs.glob("*/seed*") if path.is_dir())
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    if active + added <= (cores or 1):
        return []
    return [f"No core is free: {active} runs train on {cores} cores, so each will be slower."]


def _require(paths: list[Path]) -> None:
    if not paths:
        raise UserError("no run is selected; select one in the list")


def _name(path: Path) -> str:
    return f"{path.parent.name}/{path.name}"
