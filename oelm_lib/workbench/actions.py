"""Actions of the buttons on runs: each calls the function of the `oelm` command of that name.

An action returns text for the user: one line, then one line per warning. It raises UserError if it
cannot be carried out. The buttons that make pages are in `page_actions`.
"""

import os
import signal
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from oelm_lib.config import Experiment, change_warnings, load_config
from oelm_lib.errors import UserError
from oelm_lib.hardware import available_cores
from oelm_lib.runs.find import find_runs
from oelm_lib.runs.names import (
    experiment_of,
    parse_seeds,
    run_folder,
    run_name,
    seed_of,
    set_arguments,
)
from oelm_lib.runs.process import is_alive
from oelm_lib.runs.reading import known_status, read_config, read_status, state
from oelm_lib.runs.schema import ACTIVE
from oelm_lib.runs.stop import ask_to_stop
from oelm_lib.runs.trash import remove_experiment, restore_last
from oelm_lib.runs.trash import remove_runs as remove_folders
from oelm_lib.workbench.launches import (
    Launch,
    live_launches,
    one_starter,
    start_command,
    starting_runs,
)


def check_selected(runs: Sequence[object]) -> None:
    """Raise UserError where no run is selected."""
    if not runs:
        raise UserError("no run is selected; select one in the list")


def start_runs(exp: str, seeds: str, outputs: Path, at_once: int = 1) -> str:
    """Start the runs of an experiment as `oelm run` does; finished seeds are left out.

    Args:
        seeds: Whole numbers separated by commas.
        at_once: Concurrent runs.

    Raises:
        UserError: A seed is no number, all are done, or one of them runs or waits already.
    """
    command, warnings = _start(load_config(exp), parse_seeds(seeds), outputs, at_once, fresh=False)
    return "\n".join([f"Started: {command}.", *warnings])


def continue_runs(paths: list[Path], outputs: Path, at_once: int = 1) -> str:
    """Continue stopped, failed or dead runs from their checkpoints, each with its overrides."""
    check_selected(paths)
    live = live_launches(outputs)
    ended = [path for path in paths if state(path) != "done" and not _is_busy(path, live)]
    if not ended:
        raise UserError(
            "none of the selected runs is stopped, failed or dead, so none can go on; Start trains"
            " other seeds, Start afresh trains one of these from step 0"
        )
    return _start_again(ended, outputs, at_once, fresh=False)


def restart_run(paths: list[Path], outputs: Path) -> str:
    """Start one run over; its old folder is renamed and kept."""
    check_selected(paths)
    if len(paths) > 1:
        raise UserError("only one run can be started afresh at a time; select one")
    old = f"Where the old folder exists, it is kept as {run_name(paths[0])}.<date>-<time>."
    return "\n".join([_start_again(paths, outputs, 1, fresh=True), old])


def stop_runs(paths: list[Path], outputs: Path) -> str:
    """Ask runs to save and stop.

    A run that trains for one command is asked alone, so that the command's other runs go on. For a
    run that waits or begins, and where several commands hold it, the commands are stopped.
    """
    check_selected(paths)
    live = live_launches(outputs)
    busy = [path for path in paths if _is_busy(path, live)]
    if not busy:
        states = ", ".join(f"{run_name(path)} is {state(path)}" for path in paths)
        hint = ""
        if any(state(path) == "queued" for path in paths):
            hint = " here; scancel stops a Slurm job"
        raise UserError(f"{states}, so there is nothing to stop{hint}")
    lines, refusals = [], []
    for path in busy:
        try:
            lines += _stop(path, live)
        except UserError as error:
            refusals.append(str(error))
    if not lines:
        raise UserError("; ".join(refusals))
    return "\n".join(["; ".join(dict.fromkeys(lines)), *refusals])


def remove_runs(paths: list[Path], outputs: Path) -> str:
    """Move runs into the trash: all of them, or none.

    Raises:
        UserError: One of them trains, waits or is gone.
    """
    check_selected(paths)
    gone = [run_name(path) for path in paths if not path.is_dir()]
    if gone:
        raise UserError(f"{', '.join(gone)}: gone already; nothing was removed")
    live = live_launches(outputs)
    busy = [run_name(path) for path in paths if _is_busy(path, live)]
    if busy:
        raise UserError(
            f"{', '.join(busy)}: trains or waits; press Stop first, or leave it out of the"
            " selection; nothing was removed"
        )
    remove_folders(paths)
    return f"Removed: {', '.join(map(run_name, paths))}. Undo remove brings back all of them."


def delete_experiment(exp: str, outputs: Path) -> str:
    """Move one's own experiment into the trash.

    Raises:
        UserError: It is one of the project's, has runs or begins one, or another is compared to it.
    """
    held = [run for launch in live_launches(outputs) for run in launch.runs]
    if exp in map(experiment_of, held):
        raise UserError(f"{exp}: a command holds runs of it; press Stop first")
    remove_experiment(exp, outputs)
    return f"Deleted: params/{exp}.yaml. Undo remove, below, brings it back."


def undo_remove(outputs: Path) -> str:
    """Bring back all runs of the last removal, or the experiment that was deleted last."""
    return f"Back again: {', '.join(map(run_name, restore_last(outputs)))}"


def _start_again(paths: list[Path], outputs: Path, at_once: int, fresh: bool) -> str:
    """Start the runs of each folder with the overrides of its first."""
    folders: dict[str, list[Path]] = {}
    for path in paths:
        folders.setdefault(path.parent.name, []).append(path)
    configs = {
        folder: load_config(experiment_of(folder), _recorded_overrides(members[0]))
        for folder, members in folders.items()
    }
    commands, warnings = [], []
    for folder, members in folders.items():
        try:
            command, lines = _start(
                configs[folder], list(map(seed_of, members)), outputs, at_once, fresh
            )
        except UserError as error:
            if not commands:
                raise
            warnings.append(f"Not started: {error}")
        else:
            commands.append(command)
            warnings += lines
    return "\n".join([f"Started: {'; '.join(commands)}.", *dict.fromkeys(warnings)])


def _start(
    cfg: Experiment, seeds: list[int], outputs: Path, at_once: int, fresh: bool
) -> tuple[str, list[str]]:
    """Start the seeds that are not done; return the command and warnings. Raises UserError."""
    paths = {seed: run_folder(cfg, seed, outputs) for seed in seeds}
    with one_starter(outputs):
        live = live_launches(outputs)
        busy = [seed for seed, path in paths.items() if _is_busy(path, live)]
        if busy:
            names = ", ".join(str(seed) for seed in busy)
            raise UserError(
                f"{cfg.id} seed {names}: runs or waits already; stop it first, or choose other"
                " seeds"
            )
        open_seeds = [seed for seed, path in paths.items() if fresh or state(path) != "done"]
        if not open_seeds:
            raise UserError(f"{cfg.id}: these seeds are all done; choose another, or start afresh")
        arguments = ["run", cfg.id, "--seeds", ",".join(map(str, open_seeds))]
        arguments += set_arguments(cfg.overrides)
        if len(open_seeds) > 1:
            arguments += ["--workers", str(at_once)]
        if fresh:
            arguments.append("--fresh")
        done = [str(seed) for seed in seeds if seed not in open_seeds]
        warnings = [f"Left out, since done: seed {', '.join(done)}."] if done else []
        warnings += change_warnings(cfg.id)
        warnings += _core_warnings(outputs, min(at_once, len(open_seeds)))
        runs = [run_name(paths[seed]) for seed in open_seeds]
        launch = start_command(arguments, outputs, runs, at_once)
    return launch.command, warnings


def _recorded_overrides(path: Path) -> dict[str, Any]:
    """Return the overrides of a run. Raises UserError for a rehearsal that never began."""
    if (path / "config.yaml").is_file():
        return read_config(path)["overrides"]
    if "+" in path.parent.name:
        raise UserError(
            f"{run_name(path)}: a rehearsal that never began, so its overrides are not recorded;"
            " start it again as it was started"
        )
    return {}


def _stop(path: Path, live: list[Launch]) -> list[str]:
    """Ask a run, or the commands that hold it, to stop; return what was asked. Raises UserError."""
    holders = [launch for launch in live if launch.holds(path)]
    if state(path) in ACTIVE and len(holders) < 2:
        ask_to_stop(path)
        return [f"{run_name(path)}: asked to save and stop"]
    for launch in holders:
        launch.stop()
    if not holders:
        _stop_queue(path)
        return [f"{run_name(path)}: its queue was asked to stop, with all its runs"]
    return [f"{launch.command}: asked to stop, with all its runs" for launch in holders]


def _stop_queue(path: Path) -> None:
    """Ask the queue that holds a run, started outside the workbench, to stop."""
    status = read_status(path) or {}
    if not is_alive(status):
        raise UserError(f"{run_name(path)}: its queue runs on {status.get('host')}; stop it there")
    os.kill(status["pid"], signal.SIGTERM)


def _is_busy(path: Path, live: list[Launch]) -> bool:
    """Return whether a run trains, waits or begins.

    Args:
        live: Commands of the workbench that run now; one that just began has written no status.
    """
    if any(launch.holds(path) for launch in live) or state(path) in ACTIVE:
        return True
    # A Slurm job may have been cancelled since; `oelm run` and `oelm rm` do not refuse it either.
    return state(path) == "queued" and not known_status(path).get("job")


def _core_warnings(outputs: Path, added: int) -> list[str]:
    """Return a warning where more runs train than this machine has cores.

    Args:
        added: Runs that are about to start.
    """
    training = {path for path in find_runs(outputs) if state(path) in ACTIVE}
    active = len(training | starting_runs(outputs))
    cores = available_cores()
    if active + added <= cores:
        return []
    return [f"No core is free, so each run will be slower (cores: {cores}, in progress: {active})."]
