"""Commands that check and measure: doctor, flops, bench."""

import sys

import click

from oelm_lib.cli.options import FiniteRange, note_skipped_files
from oelm_lib.cli.streams import outlives_its_reader
from oelm_lib.hardware import GPU_FLOPS


@click.command()
@click.argument("exp", required=False, metavar="[ID]")
@outlives_its_reader
def doctor(exp: str | None) -> None:
    """Check this machine before a long run.

    With ID, also check the experiment's corpus and disk space, and predict its time from 20 steps.
    """
    from oelm_lib.launch.doctor import doctor as examine

    note_skipped_files()
    healthy = True
    for passed, text in examine(exp):
        healthy &= passed
        click.echo(f"{'ok  ' if passed else 'FAIL'}  {text}")
    sys.exit(0 if healthy else 1)


@click.command()
@click.argument("exp", metavar="ID")
@click.option(
    "--gpu",
    type=click.Choice(list(GPU_FLOPS)),
    default="A5000",
    help="GPU whose time is predicted (default A5000).",
)
@click.option(
    "--utilisation",
    type=FiniteRange(0, 1, min_open=True),
    default=0.3,
    help="Share of the GPU's peak that is reached (default 0.3).",
)
def flops(exp: str, gpu: str, utilisation: float) -> None:
    """Predict the arithmetic, memory and time of the experiment ID."""
    from oelm_lib.config import load_config
    from oelm_lib.model.cost import cost_table

    for name, value in cost_table(load_config(exp), gpu, utilisation):
        click.echo(f"{name:<40}{value:>14}")


@click.command()
@click.option(
    "--size",
    type=click.Choice(["medium", "study"]),
    default="medium",
    help="Medium-512 (default), or the model of the CPU study.",
)
@click.option(
    "--dropout",
    type=FiniteRange(0, 1, max_open=True),
    help="Dropout probability (default 0.1).",
)
@click.option(
    "--rounds", type=click.IntRange(5), default=30, help="Timings of each step (default 30)."
)
@click.option(
    "--threads",
    type=click.IntRange(1),
    help="CPU threads; with 1, CPU time is measured in place of wall time.",
)
@click.option(
    "--limits",
    is_flag=True,
    help="Measure only the ratios that have a limit; exit code 1 if one is missed.",
)
@outlives_its_reader
def bench(size: str, dropout: float | None, rounds: int, threads: int | None, limits: bool) -> None:
    """Measure the training step beside other implementations.

    The others are HF GPT-2, a naive step, and the matrix products of the step alone.
    """
    if limits and dropout is not None:
        raise click.UsageError("--limits measures dropout 0 and 0.1; leave --dropout out")
    if limits:
        sys.exit(_bench_limits(size, rounds, threads))
    from oelm_lib.bench.cpu import bench as measure
    from oelm_lib.bench.cpu_results import summary
    from oelm_lib.config import outputs_dir
    from oelm_lib.report.make import report as make_page

    dropout = 0.1 if dropout is None else dropout
    out = outputs_dir() / f"bench_{size}_dropout{round(100 * dropout)}.json"
    result = measure(size, dropout, rounds, out, threads)
    click.echo(summary([result]).to_string(index=False))
    click.echo(make_page("bench"))


def _bench_limits(size: str, rounds: int, threads: int | None) -> int:
    """Print the ratios that have a limit; return the exit code, 1 where one is missed."""
    from oelm_lib.bench.limits import MISSED, bench_limits, limits_table
    from oelm_lib.config import outputs_dir

    result = bench_limits(size, rounds, outputs_dir() / f"limits_{size}.json", threads)
    table = limits_table(result)
    click.echo(table.to_string(index=False))
    click.echo(f"{rounds} rounds, {result['threads']} threads, load {result['load_average']:.1f}")
    return int(MISSED in set(table["verdict"]))
