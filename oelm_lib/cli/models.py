"""Commands that use the weights of a run: generate, export."""

from pathlib import Path
from typing import Any

import click

from oelm_lib.cli.options import LATEST, FiniteRange, GivenPath, checkpoint_option, run_named
from oelm_lib.cli.streams import outlives_its_reader
from oelm_lib.errors import UserError
from oelm_lib.runs.schema import EXPORT_FORMS

MOST_SAMPLES = 4096
LEAST_TEMPERATURE = 1e-6
METRICS = ("csv", "tensorboard", "wandb-offline")


@click.command()
@click.argument("name", metavar="RUN")
@click.option(
    "--prompt", default="Once upon a time", help="Text to continue (default 'Once upon a time')."
)
@click.option(
    "--tokens", default=200, type=click.IntRange(1), help="Tokens to draw at most (default 200)."
)
@click.option(
    "--samples",
    default=1,
    type=click.IntRange(1, MOST_SAMPLES),
    help="Texts to draw in one batch (default 1).",
)
@click.option(
    "--temperature",
    default=1.0,
    type=FiniteRange(0, 1e6),
    help="Softmax temperature; 0 takes the most likely token (default 1).",
)
@click.option("--top-k", type=click.IntRange(1), help="Draw from the K most likely tokens.")
@click.option(
    "--top-p",
    type=FiniteRange(0, 1, min_open=True),
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
    """Continue a prompt with the model of RUN.

    RUN is an ID, ID/seed<k> or a run folder.

    A text ends at the end-of-text token or when the context is full.
    """
    from oelm_lib.training import open_trained

    try:
        prompt.encode()
    except UnicodeEncodeError:
        raise UserError("the prompt is not UTF-8 text; set a UTF-8 locale, or type it") from None
    trained = open_trained(str(run_named(name)), checkpoint)
    if sampling["temperature"] <= LEAST_TEMPERATURE:  # logits divided by it would overflow
        sampling["temperature"] = 0.0
    try:
        texts = trained.continued(prompt, tokens, samples, seed, **sampling)
    except RuntimeError as error:  # weights that are not finite, or no memory for the samples
        reason = str(error).splitlines()[0][:150]
        raise UserError(
            f"{trained.path}: no text can be drawn: {reason}; use another --checkpoint, or fewer"
            " --samples"
        ) from None
    for text in texts:
        click.echo(prompt + text)


@click.command()
@click.argument("names", nargs=-1, metavar="RUN...", required=True)
@click.option(
    "--format",
    "form",
    default="safetensors",
    type=click.Choice([*EXPORT_FORMS, *METRICS]),
    help="Weights: safetensors (default), or huggingface, a GPT-2 that `transformers` loads."
    " Metrics: csv, tensorboard or wandb-offline.",
)
@click.option(
    "--output", type=GivenPath(), help="What to make (default: a name in the run folder)."
)
@checkpoint_option
@outlives_its_reader
def export(names: tuple[str, ...], form: str, output: Path | None, checkpoint: str) -> None:
    """Write the weights or the metrics of runs for other tools.

    RUN is an ID, ID/seed<k> or a run folder.
    """
    if output and len(names) > 1:
        raise UserError("--output is for one run; leave it out, or export one run at a time")
    if form in METRICS and checkpoint != LATEST:
        raise UserError(f"--format {form} writes metrics, not weights; leave out --checkpoint")
    for name in names:
        path = run_named(name)
        if form in METRICS:
            from oelm_lib.runs.export_metrics import export_metrics

            click.echo(export_metrics(path, form, output))
            continue
        from oelm_lib.training import export_model, open_trained

        click.echo(export_model(open_trained(str(path), checkpoint), form, output or path / form))
