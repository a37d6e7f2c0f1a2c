"""The `oelm` command: thin; every subcommand imports what it needs when it is called."""

import contextlib
import sys
from pathlib import Path
from typing import Any

import click

from oelm_lib.errors import UserError

DEFAULT_SEED = 42


class OelmGroup(click.Group):
    """Turns a user's mistake into one line and exit code 2."""

    def main(self, *args: Any, **kwargs: Any) -> Any:
        try:
            return super().main(*args, **kwargs)
        except UserError as error:
            click.echo(f"oelm: {error}", err=True)
            sys.exit(2)
        except OSError as error:
            click.echo(
                f"oelm: {error.filename or 'system'}: {error.strerror or error}; see the path and its rights",
                err=True,
            )
            sys.exit(1)


@click.group(cls=OelmGroup, context_settings={"help_option_names": ["-h", "--help"]})
def main() -> None:
    """Train, compare and report GPTs with frozen orthogonal query/key projections.

    Exit codes: 0 done, 75 stopped on request and resumable, 2 a user's mistake, 1 anything else.
    """


@main.command()
@click.argument("exps", nargs=-1, metavar="ID...")
@click.option("--all", "everything", is_flag=True, help="Every experiment in params/.")
@click.option("--seed", type=int, help=f"Repeat of the experiment (default {DEFAULT_SEED}).")
@click.option("--seeds", help="Several repeats, e.g. 42,43,44.")
@click.option(
    "--set",
    "changes",
    multiple=True,
    metavar="KEY=VALUE",
    help="Override a key; makes it a rehearsal.",
)
@click.option(
    "--workers", type=click.IntRange(1), default=1, help="Runs at a time on the CPU (default 1)."
)
@click.option("--gpus", help="Run on these GPUs, one run on each: 2,3 or auto.")
@click.option(
    "--wait-idle", is_flag=True, help="Take a GPU only once others have left it for a minute."
)
@click.option(
    "--max-wait",
    type=click.FloatRange(0),
    default=24,
    metavar="HOURS",
    help="Wait at most (default 24).",
)
@click.option(
    "--fresh", is_flag=True, help="Start anew; an existing run folder is renamed and kept."
)
@click.option(
    "--test",
    is_flag=True,
    help="Score the test split at the end: for confirmation, never for selection.",
)
def run(
    exps: tuple[str, ...],
    everything: bool,
    changes: tuple[str, ...],
    fresh: bool,
    test: bool,
    **options: Any,
) -> None:
    """Train experiments as notebooks, each into its run folder with a page.

    ID is an experiment or a glob such as "DEMO-*". The same command continues what was stopped and skips what is done.
    """
    from oelm_lib import config
    from oelm_lib.launch.local import make_jobs, make_slots, run_queue
    from oelm_lib.launch.notebook import run_experiment

    overrides = config.parse_overrides(" ".join(changes))
    seeds = _seeds(options.pop("seed"), options.pop("seeds"))
    jobs = make_jobs(config.experiment_ids() if everything else list(exps), seeds, overrides, test)
    if not jobs:
        raise UserError(
            f"no experiment named; name one or use --all; allowed: {', '.join(config.experiment_ids())}"
        )
    slots = make_slots(**options)
    if len(jobs) == 1 and not slots.gpus:
        sys.exit(run_experiment(jobs[0].exp, jobs[0].seed, overrides, fresh, test))
    if fresh:
        raise UserError("--fresh is for one run at a time; name one experiment and one seed")
    sys.exit(run_queue(jobs, overrides, slots))


@main.command()
@click.argument("exps", nargs=-1, metavar="ID...", required=True)
@click.option(
    "--seeds", default=str(DEFAULT_SEED), help=f"Repeats, e.g. 42,43,44 (default {DEFAULT_SEED})."
)
@click.option(
    "--set",
    "changes",
    multiple=True,
    metavar="KEY=VALUE",
    help="Override a key; makes it a rehearsal.",
)
@click.option("--partition", help="Slurm partition (default: the cluster's).")
@click.option("--gres", help="Devices of a job, e.g. gpu:1.")
@click.option(
    "--time",
    default="04:00:00",
    help="Time of a job (default 04:00:00); longer runs are queued again.",
)
@click.option("--cpus", "cpus_per_task", default=4, help="CPUs of a job (default 4).")
@click.option(
    "--sbatch",
    "other",
    multiple=True,
    metavar="KEY=VALUE",
    help="Further sbatch options: account=lab.",
)
@click.option(
    "--parallel", type=click.IntRange(1), default=256, help="Jobs at a time, at most (default 256)."
)
@click.option(
    "--report/--no-report", default=True, help="Whether a job after them compares the experiments."
)
@click.option("--dry-run", is_flag=True, help="Print what would be submitted.")
def submit(
    exps: tuple[str, ...],
    seeds: str,
    changes: tuple[str, ...],
    other: tuple[str, ...],
    **options: Any,
) -> None:
    """Submit experiments x seeds to Slurm as one array; what is done is left out, what was stopped goes on."""
    from oelm_lib import config
    from oelm_lib.launch import slurm
    from oelm_lib.launch.local import make_jobs

    overrides = config.parse_overrides(" ".join(changes))
    jobs = make_jobs(list(exps), _seeds(None, seeds), overrides)
    how = [options.pop(key) for key in ("parallel", "report", "dry_run")]
    options |= dict(item.partition("=")[::2] for item in other)
    click.echo(
        "\n".join(slurm.submit(jobs, overrides, {k: v for k, v in options.items() if v}, *how))
    )


@main.command()
@click.argument("plan", type=Path)
@click.option(
    "--dry-run", is_flag=True, help="Write the experiment files and tell the cost; train nothing."
)
@click.option(
    "--workers", type=click.IntRange(1), default=2, help="Runs at a time on the CPU (default 2)."
)
@click.option(
    "--slurm", metavar="'KEY=VALUE ...'", help="Submit as one array with these sbatch options."
)
def sweep(plan: Path, dry_run: bool, workers: int, slurm: str | None) -> None:
    """Train the grid of runs of a PLAN, e.g. params/study/stage1.yaml, and record each in reports/study/runs.jsonl.

    The same command goes on after a stop, and on another machine with what the file records.
    """
    from oelm_lib.launch.sweep import sweep as run_sweep

    sbatch = None if slurm is None else dict(item.partition("=")[::2] for item in slurm.split())
    sys.exit(run_sweep(plan, dry_run, workers, sbatch))


@main.command()
@click.argument("target", default="compare")
@click.option(
    "--keep", is_flag=True, help="Publish it in reports/ with a picture, from a clean commit."
)
def report(target: str, keep: bool) -> None:
    """Make an offline page: of an executed notebook, a run folder, `study`, `bench`, experiments, or `compare`."""
    from oelm_lib.report.keep import keep as keep_report
    from oelm_lib.report.page import report as make_report

    click.echo(keep_report(target) if keep else make_report(target))


@main.command()
@click.option(
    "--lang", type=click.Choice(["en", "zh"]), default="en", help="Language (default en)."
)
@click.option(
    "--output", type=Path, help="Markdown file to write; notes between its markers are kept."
)
def journal(lang: str, output: Path | None) -> None:
    """Regenerate the experiment log from run folders and the recorded numbers."""
    from oelm_lib.report.journal import journal as write_journal

    text = write_journal(language=lang, path=output)
    click.echo(output or text)


@main.command()
@click.argument("exps", nargs=-1, metavar="[ID...]")
@click.option("--watch", is_flag=True, help="Look again every two seconds until Ctrl-C.")
@click.option("--json", "as_json", is_flag=True, help="Rows for a program.")
def status(exps: tuple[str, ...], watch: bool, as_json: bool) -> None:
    """Show where every run stands: from files alone, so over ssh too."""
    import json
    import shutil
    import time

    from oelm_lib.files import finite
    from oelm_lib.runs.overview import overview, table

    if as_json or not watch:
        rows = overview(list(exps))
        click.echo(json.dumps(finite(rows), indent=1) if as_json else table(rows))
        return
    with contextlib.suppress(KeyboardInterrupt):
        while True:
            width, height = shutil.get_terminal_size()
            lines = table(overview(list(exps)), width).splitlines()
            click.echo("\033[H\033[J" + "\n".join(lines[: height - 1]))
            time.sleep(2)


@main.command()
@click.argument("name", metavar="RUN")
@click.option("-f", "--follow", is_flag=True, help="Show new lines until the run ends.")
@click.option(
    "-n", "--lines", type=click.IntRange(0), default=20, help="Lines to begin with (default 20)."
)
def logs(name: str, follow: bool, lines: int) -> None:
    """Show a run's log; RUN is an ID, ID/seed<k> or a run folder."""
    from oelm_lib.runs.logs import find_run, log_lines

    with contextlib.suppress(KeyboardInterrupt):
        for line in log_lines(find_run(name), lines, follow):
            click.echo(line)


@main.command()
@click.argument("name", metavar="RUN")
def stop(name: str) -> None:
    """Let a run save and stop; RUN is as for `oelm logs`. The command that started it goes on later."""
    import time

    from oelm_lib.runs.logs import find_run
    from oelm_lib.runs.reading import ACTIVE, state

    path = find_run(name)
    if state(path) not in ACTIVE:
        raise UserError(f"{path}: {state(path)}, so there is nothing to stop; see oelm status")
    (path / "STOP").touch()
    click.echo(f"{path}: asked to save and stop")
    for _ in range(60):
        time.sleep(0.5)
        if state(path) not in ACTIVE:
            click.echo(f"{path}: {state(path)}")
            return
    click.echo(
        f"{path}: still {state(path)} after 30 s; it stops when the step, evaluation or save is done"
    )


@main.command()
@click.argument("name", metavar="RUN")
def replay(name: str) -> None:
    """Run the step again at which the numbers of RUN went bad; RUN is as for `oelm logs`."""
    from oelm_lib.runs.logs import find_run
    from oelm_lib.training import replay_step

    click.echo(replay_step(find_run(name)))


@main.command()
@click.argument("name", metavar="RUN")
@click.option(
    "--prompt", default="Once upon a time", help="Text to go on from (default 'Once upon a time')."
)
@click.option(
    "--tokens", default=200, type=click.IntRange(1), help="Most tokens to draw (default 200)."
)
@click.option(
    "--samples", default=1, type=click.IntRange(1), help="Texts, drawn together (default 1)."
)
@click.option(
    "--temperature",
    default=1.0,
    type=click.FloatRange(0),
    help="0 takes the likeliest token (default 1).",
)
@click.option("--top-k", type=click.IntRange(1), help="Draw from the k likeliest tokens.")
@click.option(
    "--top-p",
    type=click.FloatRange(0, 1, min_open=True),
    help="Draw from the likeliest with this share.",
)
@click.option("--seed", default=0, help="Of the draw (default 0).")
@click.option("--checkpoint", default="latest", help="latest (default), best or latest.prev.")
def generate(
    name: str, prompt: str, tokens: int, samples: int, seed: int, checkpoint: str, **how: Any
) -> None:
    """Let the model of RUN go on from a prompt, until end-of-text or a full context; RUN is as for `oelm logs`."""
    from oelm_lib.training import open_trained

    for text in open_trained(name, checkpoint).continued(prompt, tokens, samples, seed, **how):
        click.echo(prompt + text)


@main.command()
@click.argument("name", metavar="RUN")
@click.option(
    "--format", "form", default="safetensors", type=click.Choice(["safetensors", "huggingface"])
)
@click.option("--output", type=Path, help="Folder to make (default: one in the run folder).")
@click.option("--checkpoint", default="latest", help="latest (default), best or latest.prev.")
def export(name: str, form: str, output: Path | None, checkpoint: str) -> None:
    """Write the weights of RUN for other tools: safetensors, or a GPT-2 that `transformers` loads."""
    from oelm_lib.training import export_model as write
    from oelm_lib.training import open_trained

    trained = open_trained(name, checkpoint)
    click.echo(write(trained, form, output or trained.path / form))


@main.command()
@click.argument("exp", required=False, metavar="[ID]")
def doctor(exp: str | None) -> None:
    """Check this machine before a long run; with an experiment also its data, disk and, by 20 steps, its time."""
    from oelm_lib.launch.doctor import doctor as examine

    fine = True
    for good, text in examine(exp):
        fine &= good
        click.echo(f"{'ok  ' if good else 'FAIL'}  {text}")
    sys.exit(0 if fine else 1)


@main.command()
@click.argument("exp", metavar="ID")
@click.option(
    "--gpu", type=click.Choice(["A5000", "A100", "H100"]), default="A5000", help="For the time."
)
@click.option(
    "--utilisation",
    type=click.FloatRange(0, 1, min_open=True),
    default=0.3,
    help="Share of its peak.",
)
def flops(exp: str, gpu: str, utilisation: float) -> None:
    """Predict arithmetic, memory and time of the experiment ID."""
    from oelm_lib.config import load_config
    from oelm_lib.model.cost import cost_table
    from oelm_lib.model.dropout import QUERY_BLOCK
    from oelm_lib.model.gpt import CHUNK

    for name, value in cost_table(load_config(exp), gpu, utilisation, CHUNK, QUERY_BLOCK):
        click.echo(f"{name:<40}{value:>14}")


@main.command()
@click.option(
    "--size",
    type=click.Choice(["medium", "study"]),
    default="medium",
    help="Medium-512 or CPU study.",
)
@click.option(
    "--dropout",
    type=click.FloatRange(0, 1, max_open=True),
    default=0.1,
    help="Dropout (default 0.1).",
)
@click.option("--rounds", type=click.IntRange(1), default=30, help="Alternations (default 30).")
@click.option(
    "--threads",
    type=click.IntRange(1),
    help="CPU threads; with 1, CPU time is measured, not wall time.",
)
def bench(size: str, dropout: float, rounds: int, threads: int | None) -> None:
    """Measure the training step on this CPU against HF GPT-2, a naive step and the limit of its matrix products."""
    from oelm_lib.bench import figures as speed
    from oelm_lib.bench.measure import bench as measure
    from oelm_lib.config import outputs_dir
    from oelm_lib.report.page import report as make_page

    result = measure(
        size,
        dropout,
        rounds,
        outputs_dir() / f"bench_{size}_dropout{round(100 * dropout)}",
        threads,
    )
    click.echo(speed.summary([result]).to_string(index=False))
    click.echo(make_page("bench"))


@main.group()
def data() -> None:
    """Prepare and look at corpora."""


@data.command()
@click.argument("name")
@click.option("--source", type=Path, help="Folder or file; default: the hub.")
@click.option("--tokenizer", default="gpt2", help="gpt2 or bpe-<N>.")
@click.option("--limit", type=click.IntRange(1), help="Documents at most; the result is a sample.")
def prepare(name: str, source: Path | None, tokenizer: str, limit: int | None) -> None:
    """Tokenise the corpus NAME into data/NAME/<tokenizer>/."""
    from oelm_lib.data.prepare import prepare as prepare_corpus

    click.echo(prepare_corpus(name, source, tokenizer, limit, echo=click.echo).path)


@data.command("list")
def list_() -> None:
    """List the corpora and what is prepared of them."""
    from oelm_lib.data.prepare import list_corpora

    click.echo(list_corpora().to_string(index=False))


@data.command()
@click.argument("name")
@click.option("--tokenizer", default="gpt2", help="gpt2 or bpe-<N>.")
@click.option("--documents", type=click.IntRange(0), default=3, help="Documents to print.")
def show(name: str, tokenizer: str, documents: int) -> None:
    """Print token statistics and documents of a prepared corpus."""
    from oelm_lib.data.prepare import show as show_corpus

    click.echo(show_corpus(name, tokenizer, documents))


def _seeds(seed: int | None, seeds: str | None) -> list[int]:
    """The seeds asked for. Raises UserError."""
    if seed is not None and seeds is not None:
        raise UserError("--seed and --seeds are both given; keep one")
    if seeds is None:
        return [DEFAULT_SEED if seed is None else seed]
    parts = [part.strip() for part in seeds.split(",") if part.strip()]
    if not parts or not all(part.isdigit() for part in parts):
        raise UserError(
            f"--seeds {seeds!r} should be whole numbers parted by commas, e.g. 42,43,44"
        )
    return list(dict.fromkeys(int(part) for part in parts))


if __name__ == "__main__":
    main()
