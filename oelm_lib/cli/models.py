"""Commands that use the weights of a run: generate, export."""

from pathlib import Path
from typing import Any

import click

from oelm_lib.cli.options import checkpoint_option


@click.command()
@click.argument("name", metavar="RUN")
@click.option(
    "--prompt", default="Once upon a time", help="Text to continue (default 'Once upon a time')."
)
@click.option(
    "--tokens", default=200, type=click.IntRange(1), help="Tokens to draw at most (default 200)."
)
@click.option(
    "--samples", default=1, type=click.IntRange(1), help="Texts to draw in one batch (default 1)."
)
@click.option(
    "--temperature",
    default=1.0,
    type=click.FloatRange(0),
    help="Softmax temperature; 0 takes the most likely token (default 1).",
)
@click.option("--top-k", type=click.IntRange(1), help="Draw from the K most likely tokens.")
@click.option(
    "--top-p",
    type=click.FloatRange(0, 1, min_open=True),
    help="Draw from the most likely tokens that hold this probability together.",
)
@click.option("--seed", default=0, help="Seed of the draw (default 0).")
@checkpoint_option
def generate(
    name: str,
    prompt: str,
    tokens: int,
    samples: int,
    seed: int,
    checkpoint: str,
    **sampling: Any,
) -> None:
    """Continue a prompt with the model of RUN: an ID, ID/seed<k> or a run folder.

    A text ends at the end-of-text token or when the context is full.
    """
    from oelm_lib.training.trained import open_trained

    trained = open_trained(name, checkpoint)
    for text in trained.continued(prompt, tokens, samples, seed, **sampling):
        click.echo(prompt + text)


@click.command()
@click.argument("name", metavar="RUN")
@click.option(
    "--format",
    "form",
    default="safetensors",
    type=click.Choice(["safetensors", "huggingface"]),
    help="Weights alone (default), or a GPT-2 that `transformers` loads.",
)
@click.option("--output", type=Path, help="Folder to make (default: one in the run folder).")
@checkpoint_option
def export(name: str, form: str, output: Path | None, checkpoint: str) -> None:
    """Write the weights of RUN for other tools. RUN is an ID, ID/seed<k> or a run folder."""
    from oelm_lib.training.export import export as write
    from oelm_lib.training.trained import open_trained

    trained = open_trained(name, checkpoint)
    click.echo(write(trained, form, output or trained.path / form))
