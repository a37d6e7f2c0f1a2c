"""Commands about corpora: data prepare, new, list and show."""

from pathlib import Path

import click

from oelm_lib.cli.options import GivenPath
from oelm_lib.cli.streams import outlives_its_reader

tokenizer_option = click.option("--tokenizer", default="gpt2", help="gpt2 (default) or bpe-<N>.")


@click.group()
def data() -> None:
    """Prepare and inspect corpora."""


@data.command()
@click.argument("name")
@click.option("--source", type=GivenPath(), help="Folder or file to read (default: the hub).")
@tokenizer_option
@click.option(
    "--limit",
    type=click.IntRange(1),
    help="Read this many documents of each split; NAME must end in -sample.",
)
@outlives_its_reader
def prepare(name: str, source: Path | None, tokenizer: str, limit: int | None) -> None:
    """Tokenise the corpus NAME into data/NAME/<tokenizer>/."""
    from oelm_lib.data import prepare as prepare_corpus

    corpus = prepare_corpus(name, source, tokenizer, limit)
    click.echo(click.format_filename(corpus.path))


@data.command("list")
def list_() -> None:
    """List the corpora and their prepared versions."""
    from oelm_lib.data import list_corpora

    click.echo(list_corpora().to_string(index=False))


@data.command()
@click.argument("name")
@tokenizer_option
@click.option(
    "--documents", type=click.IntRange(0), default=3, help="Documents to print (default 3)."
)
@outlives_its_reader
def show(name: str, tokenizer: str, documents: int) -> None:
    """Print token statistics and the first documents of the corpus NAME.

    A corpus that is not prepared yet is prepared first, as by `oelm data prepare NAME`.
    """
    from oelm_lib.data import show_corpus

    click.echo(show_corpus(name, tokenizer, documents))


@data.command()
@click.argument("name")
@click.option(
    "--from", "source", type=GivenPath(), required=True, help="File or folder of your text."
)
@click.option("--tokenizer", help="gpt2 or bpe-<N> (default: by the size of the text).")
@outlives_its_reader
def new(name: str, source: Path, tokenizer: str | None) -> None:
    """Write a corpus file NAME for your own text and prepare it (docs/own-corpus.md)."""
    from oelm_lib.data import new_corpus
    from oelm_lib.runs.names import command_line, set_arguments

    corpus = new_corpus(name, source, tokenizer)
    click.echo(click.format_filename(corpus.path))
    overrides = {
        "data.corpus": name,
        "data.tokenizer": corpus.tokenizer,
        "model.vocab_size": corpus.vocab_size,
    }
    click.echo(f"run: {command_line(['run', 'DEMO-02', *set_arguments(overrides)])}")
