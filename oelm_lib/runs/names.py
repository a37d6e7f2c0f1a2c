"""Names of runs, `<ID>_<slug>[+hash]/seed<k>`, what users type for them, and their commands."""

import fnmatch
import re
import shlex
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from oelm_lib.config import Experiment, as_text, outputs_dir


def run_folder(cfg: Experiment, seed: int, outputs: Path | str | None = None) -> Path:
    """Return the folder of a run; `outputs` is by default config.outputs_dir()."""
    return (Path(outputs).absolute() if outputs else outputs_dir()) / cfg.folder / f"seed{seed}"


def seed_of(path: Path) -> int:
    """Return the seed of the run of a folder."""
    return int(path.name.removeprefix("seed"))


def run_name(path: Path) -> str:
    """Return the name of the run of a folder, <ID>_<slug>[+hash]/seed<k>."""
    return f"{path.parent.name}/{path.name}"


def experiment_of(folder: str) -> str:
    """Return the experiment id in <ID>_<slug>[+hash], the folder that holds the seeds of an arm."""
    return folder.split("_")[0]


def arm_id_of(folder: str) -> str:
    """Return the name of a folder's arm, as `oelm report` takes it.

    That is its experiment's id, or of a rehearsal the whole folder's name.
    """
    return folder if "+" in folder else experiment_of(folder)


def short_name(path: Path) -> str:
    """Return <ID>/seed<k>, which an experiment shares with its rehearsals."""
    return f"{experiment_of(path.parent.name)}/{path.name}"


def matches(name: str, path: Path) -> bool:
    """Return whether the run of a folder is called so.

    Args:
        name: `<ID>`, `<ID>/seed<k>`, or the same with the folder's name. `demo-02` and
            `params/DEMO-02.yaml` mean DEMO-02.
    """
    wanted = re.sub(r"^params/|\.yaml$", "", name.strip("/"))
    exp, slash, seed = wanted.partition("/")
    by_id = (experiment_of(path.parent.name), short_name(path))
    return exp.upper() + slash + seed in by_id or wanted in (path.parent.name, run_name(path))


def matches_pattern(folder: str, pattern: str, rehearsals: bool = True) -> bool:
    """Return whether an experiment id or glob means the runs of a folder <ID>_<slug>[+hash].

    Args:
        pattern: One with a `+` is compared with the folder's name.
        rehearsals: Whether a pattern without `+` means an experiment's rehearsals too.
    """
    if "+" in pattern:
        return fnmatch.fnmatchcase(folder, pattern)
    is_candidate = rehearsals or "+" not in folder
    return is_candidate and fnmatch.fnmatchcase(experiment_of(folder), pattern)


def runs_text(count: int) -> str:
    """Return a number of runs in words: 1 run, 3 runs."""
    return f"{count} run{'s' * (count != 1)}"


def is_glob(text: str) -> bool:
    """Return whether a name has a character of globs."""
    return any(sign in text for sign in "*?[")


def parse_patterns(exps: list[str] | str | None) -> list[str]:
    """Return experiment ids or globs as a list; as text they are parted by spaces or commas.

    None and nothing mean all.
    """
    return exps.replace(",", " ").split() if isinstance(exps, str) else exps or ["*"]


def command_line(arguments: Iterable[str]) -> str:
    """Return `oelm ARGUMENTS` as one types it."""
    return shlex.join(["oelm", *arguments])


def run_arguments(exp: str, seed: int, overrides: dict[str, Any]) -> list[str]:
    """Return the arguments of `oelm` that make a run."""
    return ["run", exp, "--seed", str(seed), *set_arguments(overrides)]


def set_arguments(overrides: dict[str, Any]) -> list[str]:
    """Return the arguments of `oelm run` for overrides, `--set KEY=VALUE` each."""
    pairs = (("--set", as_text({key: value})) for key, value in overrides.items())
    return [argument for pair in pairs for argument in pair]


def run_command(exp: str, seed: int, overrides: dict[str, Any]) -> str:
    """Return the command that makes a run, as text for a shell."""
    return command_line(run_arguments(exp, seed, overrides))
