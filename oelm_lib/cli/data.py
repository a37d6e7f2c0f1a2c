"""Commands about corpora: data prepare, data list, data show."""

from pathlib import Path

import click

tokenizer_option = click.option("--tokenizer", default="gpt2", help="gpt2 (default) or bpe-<N>.")


@click.group()
def data() -> None:
    """Prepare and inspect corpora."""


@data.command()
@click.argument("name")
@click.option("--source", type=Path, help="Folder or file to read (default: the hub).")
@tokenizer_option
@click.option(
    "--limit", type=click.IntRange(1), help="Read this many documents; the result is a sample."
)
def prepare(name: str, source: Path | None, tokenizer: str, limit: int | None) -> None:
    """Tokenise the corpus NAME into data/NAME/<tokenizer>/."""
    from oelm_lib.data.prepare import prepare as prepare_corpus

    click.echo(prepare_corpus(name, source, tokenizer, limit, echo=click.echo).path)


@data.command("list")
def list_() -> None:
    """List the corpora and their prepared versions."""
    from oelm_lib.data.prepare import list_corpora

    click.echo(list_corpora().to_string(index=False))


@data.command()
@click.argument("name")
@tokenizer_option
@click.option(
    "--documents", type=click.IntRange(0), default=3, help="Documents to print (default 3)."
)
def show(name: str, tokenizer: str, documents: int) -> None:
    """Print token statistics and the first documents of a prepared corpus."""
    from oelm_lib.data.prepare import show as show_corpus

    click.echo(show_corpus(name, tokenizer, documents))
