"""The `oelm` command: the group and its commands, one file per group of commands.

A command imports what it needs when it is called, so `oelm --help` and `oelm status` stay quick.
"""

import sys
from typing import Any

import click

from oelm_lib.cli import checks, data, experiments, models, pages, runs, study
from oelm_lib.cli.streams import open_closed_streams
from oelm_lib.errors import USER_ERROR, UserError
from oelm_lib.files import remedy

COMMANDS = (
    runs.run,
    runs.submit,
    runs.status,
    runs.logs,
    runs.stop,
    runs.replay,
    runs.rm,
    study.study,
    experiments.new,
    pages.lab,
    pages.report,
    pages.journal,
    models.generate,
    models.export,
    data.data,
    checks.doctor,
    checks.flops,
    checks.bench,
)


class OelmGroup(click.Group):
    """A group whose commands report a user's mistake on one line, without a traceback."""

    def main(self, *args: Any, **kwargs: Any) -> Any:
        open_closed_streams()
        # jsonschema builds a grammar of IRIs that no notebook uses: importing papermill takes 2.4
        # CPU seconds with it, 1.1 without (medians of 3 alternating imports).
        sys.modules.setdefault("rfc3987_syntax", None)
        try:
            return super().main(*args, **kwargs)
        except UserError as error:
            click.echo(f"oelm: {error}", err=True)
            sys.exit(error.exit_code)
        except OSError as error:
            where = error.filename or "system"
            reason = error.strerror or error
            click.echo(f"oelm: {where}: {reason}; {remedy(error)}", err=True)
            sys.exit(USER_ERROR)

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names in the order of COMMANDS, which is the order of work."""
        return list(self.commands)


@click.group(
    cls=OelmGroup,
    commands={command.name: command for command in COMMANDS},
    context_settings={"help_option_names": ["-h", "--help"]},
)
def main() -> None:
    """Train, compare and report GPTs with frozen random query/key projections.

    Exit codes: 0 done, 75 stopped on request and resumable, 69 the run is in use by another
    process, 2 any other user error, 1 anything else.
    """
    from oelm_lib.config import fix_folders

    fix_folders()
