"""Commands about studies: sweep."""

import sys
from pathlib import Path

import click

from oelm_lib.cli.options import sbatch_from


@click.command()
@click.argument("plan", type=Path)
@click.option("--dry-run", is_flag=True, help="Write the experiment files and print the cost.")
@click.option(
    "--workers", type=click.IntRange(1), default=2, help="Concurrent runs on the CPU (default 2)."
)
@click.option("--slurm", metavar="'KEY=VALUE ...'", help="Submit one array with these options.")
def sweep(plan: Path, dry_run: bool, workers: int, slurm: str | None) -> None:
    """Train the grid of runs of PLAN, e.g. params/study/stage1.yaml, and record each run.

    The same command continues after a stop, and on another machine with the recorded runs.
    """
    from oelm_lib.launch.sweep import sweep as run_sweep

    sbatch = None if slurm is None else sbatch_from(tuple(slurm.split()))
    sys.exit(run_sweep(plan, dry_run, workers, sbatch))
