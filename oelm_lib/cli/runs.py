"""Commands about runs: run, submit, status, logs, stop, replay, rm."""

import contextlib
import sys
from typing import Any

import click

from oelm_lib.cli.options import (
    FiniteRange,
    note_skipped_files,
    rehearsal_option,
    run_named,
    sbatch_from,
    seeds_option,
)
from oelm_lib.cli.streams import outlives_its_output, outlives_its_reader
from oelm_lib.errors import UserError


@click.command()
@click.argument("exps", nargs=-1, metavar="ID...")
@seeds_option
@rehearsal_option
@click.option(
    "--workers",
    type=click.IntRange(1),
    default=1,
    help="Concurrent runs (default 1); without --gpus they share the visible GPUs.",
)
@click.option("--gpus", help="Run on these GPUs, one run on each: 2,3 or auto.")
@click.option("--wait-idle", is_flag=True, help="Use a GPU only after it was idle for a minute.")
@click.option(
    "--max-wait",
    type=FiniteRange(0),
    default=24,
    metavar="HOURS",
    help="Give up after HOURS in which no run was active (default 24).",
)
@click.option("--fresh", is_flag=True, help="Start over; the old run folder is renamed and kept.")
@click.option(
    "--test",
    is_flag=True,
    help="Also score the test split at the end: for confirmation, never for selection.",
)
@outlives_its_output
def run(
    exps: tuple[str, ...],
    seeds: list[int],
    overrides: dict[str, Any],
    fresh: bool,
    test: bool,
    **slots: Any,
) -> None:
    """Train experiments, each as an executed notebook with a page.

    ID is an experiment or a glob such as "DEMO-*". Finished runs are skipped; the same command
    continues stopped ones.
    """
    from oelm_lib import config
    from oelm_lib.launch.jobs import make_jobs
    from oelm_lib.launch.notebook import run_experiment
    from oelm_lib.launch.queue import run_queue
    from oelm_lib.launch.slots import make_slots

    jobs = make_jobs(list(exps), seeds, overrides, test)
    note_skipped_files()
    if not jobs:
        allowed = ", ".join(config.experiment_ids())
        raise UserError(f"no experiment named; name one, or '*' for all; allowed: {allowed}")
    for exp in dict.fromkeys(job.exp for job in jobs):
        for line in config.change_warnings(exp):
            click.echo(f"warning: {line}", err=True)
    if len(jobs) == 1 and slots["gpus"] is None and not slots["wait_idle"]:
        sys.exit(run_experiment(jobs[0].exp, jobs[0].seed, overrides, fresh, test))
    if fresh:
        raise UserError(
            "--fresh starts one run, without --gpus and --wait-idle; name one experiment and one"
            " seed, and its GPU by --set machine.device=cuda:2"
        )
    sys.exit(run_queue(jobs, overrides, make_slots(**slots)))


@click.command()
@click.argument("exps", nargs=-1, metavar="ID...", required=True)
@seeds_option
@rehearsal_option
@click.option("--partition", help="Slurm partition (default: the cluster's).")
@click.option("--gres", help="Devices of a job, e.g. gpu:1.")
@click.option(
    "--time",
    default="04:00:00",
    help="Time limit of a job (default 04:00:00); longer runs are requeued.",
)
@click.option(
    "--cpus",
    "cpus_per_task",
    type=click.IntRange(1),
    default=4,
    help="CPUs of a job (default 4).",
)
@click.option(
    "--sbatch",
    "other",
    multiple=True,
    metavar="KEY=VALUE",
    help="Any other sbatch option, e.g. account=lab. Repeatable.",
)
@click.option(
    "--parallel", type=click.IntRange(1), default=256, help="Concurrent jobs (default 256)."
)
@click.option(
    "--report/--no-report", default=True, help="Whether a last job makes the comparison page."
)
@click.option("--dry-run", is_flag=True, help="Print what would be submitted.")
@outlives_its_reader
def submit(
    exps: tuple[str, ...],
    seeds: list[int],
    overrides: dict[str, Any],
    other: tuple[str, ...],
    parallel: int,
    report: bool,
    dry_run: bool,
    **options: Any,
) -> None:
    """Submit experiments x seeds to Slurm as one job array.

    Finished runs are left out; the same command continues stopped ones.
    """
    from oelm_lib.launch import slurm
    from oelm_lib.launch.jobs import make_jobs

    jobs = make_jobs(list(exps), seeds, overrides)
    sbatch = {key: value for key, value in options.items() if value} | sbatch_from(other)
    click.echo("\n".join(slurm.submit(jobs, overrides, sbatch, parallel, report, dry_run)))


@click.command()
@click.argument("exps", nargs=-1, metavar="[ID...]")
@click.option("--watch", is_flag=True, help="Refresh every two seconds until Ctrl-C.")
@click.option("--json", "as_json", is_flag=True, help="Print rows as JSON.")
def status(exps: tuple[str, ...], watch: bool, as_json: bool) -> None:
    """Show the state of every run. Reads files only, so it works over ssh."""
    import json
    import shutil
    import time

    from oelm_lib.files import nan_to_none
    from oelm_lib.runs.find import check_names
    from oelm_lib.runs.overview import overview, table

    if as_json and watch:
        raise UserError("--json prints once; leave out --watch, or --json for a table")
    check_names(list(exps))
    note_skipped_files()
    if not watch:
        rows = overview(list(exps) or None)
        click.echo(json.dumps(nan_to_none(rows), indent=1) if as_json else table(rows))
        return
    with contextlib.suppress(KeyboardInterrupt):
        while True:
            width, height = shutil.get_terminal_size()
            lines = table(overview(list(exps) or None), width).splitlines()
            click.echo("\033[H\033[J" + "\n".join(lines[: height - 1]))
            time.sleep(2)


@click.command()
@click.argument("name", metavar="RUN")
@click.option("-f", "--follow", is_flag=True, help="Print new lines until the run ends.")
@click.option(
    "-n", "--lines", type=click.IntRange(0), default=20, help="Last lines to print (default 20)."
)
def logs(name: str, follow: bool, lines: int) -> None:
    """Print the log of RUN: an ID, ID/seed<k> or a run folder.

    With -f, a run that is queued is waited for.
    """
    from oelm_lib.runs.logs import log_lines

    with contextlib.suppress(KeyboardInterrupt):
        for line in log_lines(run_named(name), lines, follow):
            click.echo(line)


@click.command()
@click.argument("name", metavar="RUN")
@outlives_its_output
def stop(name: str) -> None:
    """Ask RUN to save and stop. To continue it, repeat the command that started it.

    RUN is ID/seed<k>, a run folder, or an ID: every seed of it that is being trained.
    """
    import time

    from oelm_lib.runs.find import find_active_runs
    from oelm_lib.runs.reading import state
    from oelm_lib.runs.schema import ACTIVE
    from oelm_lib.runs.stop import ask_to_stop

    paths = find_active_runs(name)
    for path in paths:
        ask_to_stop(path)
        click.echo(f"{path}: asked to save and stop")
    for _ in range(60):
        time.sleep(0.5)
        for path in [path for path in paths if state(path) not in ACTIVE]:
            click.echo(f"{path}: {state(path)}")
            paths.remove(path)
        if not paths:
            return
    for path in paths:
        click.echo(
            f"{path}: still {state(path)} after 30 s; it stops at the end of the current step,"
            " evaluation or save"
        )


@click.command()
@click.argument("name", metavar="RUN")
def replay(name: str) -> None:
    """Repeat the step at which RUN diverged, and name the tensor.

    RUN is ID/seed<k>, a run folder, or an ID that has one run.
    """
    from oelm_lib.runs.find import find_run
    from oelm_lib.training import replay_step

    click.echo(replay_step(find_run(name)))


@click.command()
@click.argument("names", nargs=-1, metavar="RUN...", required=True)
@click.option("--undo", is_flag=True, help="Bring removed runs back.")
@outlives_its_reader
def rm(names: tuple[str, ...], undo: bool) -> None:
    """Move runs into a trash folder; --undo brings them back.

    The trash is .trash in the outputs folder; delete it to free the disk.

    RUN is ID/seed<k>, a run folder, or an ID that has one run. If one cannot be moved, for example
    because it is training, none is.
    """
    from oelm_lib.config import outputs_dir
    from oelm_lib.runs.find import find_run
    from oelm_lib.runs.names import run_name
    from oelm_lib.runs.trash import remove_runs, restore_runs

    if undo:
        for path in restore_runs(list(names)):
            click.echo(f"{path}: is back")
        return
    for target in remove_runs([find_run(name) for name in names]):
        root, shown = target.parents[3], run_name(target)
        shown = shown if root == outputs_dir() else root / shown
        click.echo(f"{shown}: moved to {target}; oelm rm --undo '{shown}' brings it back")
