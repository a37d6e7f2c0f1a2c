"""Names of runs, `<ID>_<slug>[+hash]/seed<k>`, what users type for runs, and their commands."""

import fnmatch
import re
import shlex
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from oelm_lib.config import Experiment, experiment_ids, find_id, outputs_dir, overrides_text
from oelm_lib.config.load import AROUND_ID
from oelm_lib.errors import UserError


def run_folder(cfg: Experiment, seed: int, outputs: Path | str | None = None) -> Path:
    """Return the folder of a run; `outputs` is by default config.outputs_dir()."""
    return (Path(outputs).absolute() if outputs else outputs_dir()) / cfg.folder / f"seed{seed}"


def seed_of(path: Path) -> int:
    """Return the seed of the run of a folder, also of one that --fresh has renamed."""
    return int(path.name.removeprefix("seed").partition(".")[0])


def run_name(path: Path) -> str:
    """Return the name of the run of a folder, <ID>_<slug>[+hash]/seed<k>."""
    return f"{path.parent.name}/{path.name}"


def experiment_of(folder: str) -> str:
    """Return the experiment id in <ID>_<slug>[+hash], the folder that holds the seeds of an arm."""
    return folder.split("_")[0]


def arm_id(folder: str) -> str:
    """Return the name of the arm in a folder <ID>_<slug>[+hash], as `oelm report` takes it.

    That is its experiment's id, or of a rehearsal the whole folder's name.
    """
    return folder if "+" in folder else experiment_of(folder)


def matches_run(name: str, path: Path, rehearsals: bool = True) -> bool:
    """Return whether a name means the run of a folder.

    Args:
        name: `<ID>`, `<ID>/seed<k>`, the same with the folder's name <ID>_<slug>[+hash], or a glob
            of one of these. `demo-02` and `params/DEMO-02.yaml` mean DEMO-02.
        rehearsals: Whether a name without `+` means an experiment's rehearsals too.
    """
    arm, slash, seed = AROUND_ID.sub("", name.strip("/")).partition("/")
    folder = path.parent.name
    if "+" in folder and "+" not in arm and not rehearsals:
        return False
    if "_" in arm or "+" in arm:  # no id has these
        known = folder
    else:
        known, arm = experiment_of(folder), arm.upper()
    return fnmatch.fnmatchcase(known, arm) and (not slash or fnmatch.fnmatchcase(path.name, seed))


def matching_ids(exps: list[str] | str | None) -> list[str]:
    """Return the ids that ids, files of params/ or globs mean, in either case; default all."""
    patterns = [AROUND_ID.sub("", pattern).upper() for pattern in parse_patterns(exps)]
    return [
        exp
        for exp in experiment_ids()
        if any(fnmatch.fnmatchcase(exp, pattern) for pattern in patterns)
    ]


def experiments_named(names: list[str]) -> list[str]:
    """Return the experiment ids meant by ids, files of params/ or globs, each once.

    Raises:
        UserError: There is no such experiment, or a glob matches none.
    """
    ids = [exp for name in names for exp in matching_ids([name]) or [find_id(name)]]
    return list(dict.fromkeys(ids))


def parse_seeds(text: str, name: str = "seeds") -> list[int]:
    """Return the whole numbers of "42,43,44", each once.

    Args:
        name: What the text is called in the error.

    Raises:
        UserError: The text is something else.
    """
    parts = [part.strip() for part in text.split(",") if part.strip()]
    if not parts or not all(re.fullmatch("[0-9]{1,18}", part) for part in parts):
        shown = text if len(text) < 100 else text[:100] + "..."
        raise UserError(
            f"{name} {shown!r} should be whole numbers of at most 18 digits separated by commas,"
            " e.g. 42,43,44"
        )
    return list(dict.fromkeys(int(part) for part in parts))


def is_glob(text: str) -> bool:
    """Return whether a name has a character of globs."""
    return any(sign in text for sign in "*?[")


def parse_patterns(exps: list[str] | str | None) -> list[str]:
    """Return experiment ids or globs as a list; as text they are separated by spaces or commas.

    None means all.
    """
    if isinstance(exps, str):
        return exps.replace(",", " ").split()
    return ["*"] if exps is None else exps


def command_line(arguments: Iterable[str]) -> str:
    """Return `oelm ARGUMENTS` as one types it."""
    return shlex.join(["oelm", *arguments])


def run_arguments(exp: str, seed: int, overrides: dict[str, Any]) -> list[str]:
    """Return the arguments of `oelm` that make a run."""
    return ["run", exp, "--seed", str(seed), *set_arguments(overrides)]


def set_arguments(overrides: dict[str, Any]) -> list[str]:
    """Return the arguments of `oelm run` for overrides, `--set KEY=VALUE` each."""
    pairs = (("--set", overrides_text({key: value})) for key, value in overrides.items())
    return [argument for pair in pairs for argument in pair]


def run_command(exp: str, seed: int, overrides: dict[str, Any]) -> str:
    """Return the command that makes a run, as text for a shell."""
    return command_line(run_arguments(exp, seed, overrides))
