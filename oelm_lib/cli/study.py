"""Commands about studies: study."""

import sys

import click

from oelm_lib.cli.options import sbatch_from
from oelm_lib.cli.streams import outlives_its_output
from oelm_lib.errors import UserError


@click.command()
@click.argument("name")
@click.option("--dry-run", is_flag=True, help="Print what is left and its cost; train nothing.")
@click.option(
    "--workers", type=click.IntRange(1), default=2, help="Concurrent runs on the CPU (default 2)."
)
@click.option("--gpus", help="One run at a time on each of these GPUs: auto, or numbers like 2,3.")
@click.option(
    "--slurm", metavar="'KEY=VALUE ...'", help="Submit --workers jobs with these sbatch options."
)
@click.option("--table", is_flag=True, help="Print the first table as Markdown; train nothing.")
@outlives_its_output
def study(
    name: str, dry_run: bool, workers: int, gpus: str | None, slurm: str | None, table: bool
) -> None:
    """Train every missing run of the study NAME.

    The study is declared in params/studies/NAME.yaml. Each ended run adds a line to
    reports/NAME/runs.jsonl. The same command continues after a stop, and on another machine with
    the recorded runs. `oelm report NAME` makes the page.
    """
    if table and (dry_run or gpus is not None or slurm is not None):
        raise UserError(
            "--table prints and trains nothing; leave out --dry-run, --gpus and --slurm"
        )
    if table:
        from oelm_lib.study.study import load_study
        from oelm_lib.study.tables import markdown_table

        click.echo(markdown_table(load_study(name)))
        return
    if gpus is not None and slurm is not None:
        raise UserError("--gpus is for runs here, and Slurm chooses those of its jobs; keep one")
    from oelm_lib.hardware import open_nvml
    from oelm_lib.launch.slots import choose_gpus
    from oelm_lib.launch.study_engine import run_study

    chosen = choose_gpus(gpus, open_nvml()) if gpus is not None else None
    sbatch = None if slurm is None else sbatch_from(tuple(slurm.split()))
    sys.exit(run_study(name, workers, chosen, dry_run, sbatch))
