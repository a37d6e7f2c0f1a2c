"""Options and values that several commands share."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from oelm_lib.errors import UserError

LATEST = "latest"
"""The default of --checkpoint."""


class FiniteRange(click.FloatRange):
    """A range of floats without NaN and infinity, which click's own range lets pass."""

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        number = super().convert(value, param, ctx)
        if not math.isfinite(number):
            self.fail(f"{value} is not a finite number.", param, ctx)
        return number


class GivenPath(click.Path):
    """A path that is not empty; pathlib takes "" (an unset variable) as the current folder."""

    def __init__(self):
        super().__init__(path_type=Path)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Path:
        if not str(value).strip():
            self.fail("the path is empty; name a file or folder.", param, ctx)
        return super().convert(value, param, ctx)


def _overrides(ctx: click.Context, param: click.Parameter, items: tuple[str, ...]) -> dict:
    """Return the values of every `--set`, as overrides. Raises UserError."""
    from oelm_lib import config

    return config.parse_overrides(" ".join(items))


def _seeds(ctx: click.Context, param: click.Parameter, items: tuple[str, ...]) -> list[int]:
    """Return the seeds of every `--seeds`. Raises UserError."""
    from oelm_lib.runs.names import parse_seeds

    return parse_seeds(",".join(items), "--seeds")


def set_option(effect: str) -> Callable[[Any], Any]:
    """Return the option `--set` of a command; `effect` is a sentence on what overrides do there."""
    return click.option(
        "--set",
        "overrides",
        multiple=True,
        callback=_overrides,
        metavar="KEY=VALUE",
        help=f"Override keys, e.g. train.max_steps=50. {effect} Repeatable.",
    )


rehearsal_option = set_option("Any key but machine.* makes the run a rehearsal.")
seeds_option = click.option(
    "--seeds",
    "--seed",
    "seeds",
    multiple=True,
    default=["42"],
    callback=_seeds,
    help="Seed, or several: 42,43,44 (default 42). Repeatable.",
)
checkpoint_option = click.option(
    "--checkpoint", default=LATEST, help="latest (default), best or latest.prev."
)


def run_named(name: str) -> Path:
    """Return the run folder that a name means, the lowest seed of several. Raises UserError."""
    from oelm_lib.runs.find import find_run

    return find_run(name, notify=lambda line: click.echo(line, err=True))


def note_skipped_files() -> None:
    """Print one note on the files of params/ that are no experiments, if there are any."""
    from oelm_lib.config import skipped_files

    if names := skipped_files():
        note = f"params/ has files that are no experiments: {', '.join(names)}"
        click.echo(f"note: {note}; rename one to <ID>.yaml, e.g. DEMO-05.yaml, to use it", err=True)


def sbatch_from(options: tuple[str, ...]) -> dict[str, Any]:
    """Return options KEY=VALUE of sbatch as a dict; a flag such as `exclusive` has the value True.

    Hyphens in keys become underscores, as submitit spells them, so no option occurs twice.

    Raises:
        UserError: A key is given twice.
    """
    given: dict[str, Any] = {}
    for option in options:
        key, equals, value = option.removeprefix("--").partition("=")
        key = key.replace("-", "_")
        if key in given:
            raise UserError(f"sbatch option {key.replace('_', '-')}: is given twice; keep one")
        given[key] = value if equals else True
    return given
