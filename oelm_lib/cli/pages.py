"""Commands that open notebooks and write pages: lab, report, journal."""

from pathlib import Path

import click

from oelm_lib.cli.options import GivenPath
from oelm_lib.cli.streams import outlives_its_reader
from oelm_lib.errors import UserError


@click.command(context_settings={"ignore_unknown_options": True})
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED, metavar="[OPTIONS OF JUPYTERLAB]...")
def lab(arguments: tuple[str, ...]) -> None:
    """Open the workbench in JupyterLab.

    The notebooks are copied into the folder lab/, which git ignores: change and save them freely.
    """
    from oelm_lib.launch.lab import open_lab

    open_lab(arguments)


@click.command()
@click.argument("target", default="compare")
@click.option("--baseline", help="Baseline of a comparison (default: each experiment's own).")
@click.option("--runs", help="Runs of the explore page, e.g. 'DEMO-01/seed42 DEMO-02/seed42'.")
@click.option(
    "--keep",
    is_flag=True,
    help="Publish the page in reports/ with a picture of its first figure; needs a clean commit"
    " and Chromium.",
)
@outlives_its_reader
def report(target: str, baseline: str | None, runs: str | None, keep: bool) -> None:
    """Make an offline page of TARGET.

    TARGET is an executed notebook, a run (its folder or ID/seed<k>), experiments to compare (ids or
    globs), `compare` (default: the DEMO experiments), the name of a study, `explore`, `bench` or
    `gpu`.
    """
    from oelm_lib.report.keep import keep as keep_report
    from oelm_lib.report.make import report as make_report

    if keep and runs is not None:
        raise UserError("--runs is for a page of your own; leave out --keep")
    click.echo(keep_report(target, baseline) if keep else make_report(target, baseline, runs))


@click.command()
@click.option(
    "--lang", type=click.Choice(["en", "zh"]), default="en", help="Language (default en)."
)
@click.option(
    "--output",
    type=GivenPath(),
    help="Markdown file to write; notes between its markers are kept.",
)
@click.option("--rehearsals", is_flag=True, help="List runs with overrides too.")
@outlives_its_reader
def journal(lang: str, output: Path | None, rehearsals: bool) -> None:
    """Write the experiment log from run folders and recorded numbers."""
    from oelm_lib.report.journal import journal as write_journal

    text = write_journal(language=lang, path=output, rehearsals=rehearsals)
    click.echo(output or text)
