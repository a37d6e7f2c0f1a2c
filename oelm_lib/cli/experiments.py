"""Commands about experiment files: new."""

from typing import Any

import click

from oelm_lib.cli.options import set_option
from oelm_lib.cli.streams import outlives_its_reader


@click.command()
@click.argument("new_id", metavar="ID")
@click.option("--from", "base", required=True, metavar="ID", help="Experiment to start from.")
@set_option("The new file has their values.")
@click.option(
    "--compare-to",
    metavar="ID",
    help="Its baseline (default: that of --from, or --from if it is one); none: it is a baseline.",
)
@click.option("--title", help="Title (default: that of --from and the changes).")
@click.option("--question", help="The question it answers (default: what the changes do).")
@click.option("--dry-run", is_flag=True, help="Print the file and write nothing.")
@outlives_its_reader
def new(
    new_id: str,
    base: str,
    overrides: dict[str, Any],
    dry_run: bool,
    **words: str | None,
) -> None:
    """Write params/ID.yaml, a new experiment from another one.

    For example: oelm new DEMO-05 --from DEMO-02 --set model.freeze_k=false. The keys that differ
    from its baseline are computed and declared in the file.
    """
    from oelm_lib.config import new_experiment, save_experiment

    text = new_experiment(base, new_id, overrides, **words)
    if dry_run:
        click.echo(text, nl=False)
        return
    path = save_experiment(new_id, text)
    click.echo(f"params/{path.name}: written; edit it, then: oelm run {new_id}")
