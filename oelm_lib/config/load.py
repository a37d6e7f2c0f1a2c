"""Load experiment files and apply overrides."""

import functools
import re
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from oelm_lib.config import paths
from oelm_lib.config.experiment import ID_PATTERN, SECTIONS, Experiment, flatten
from oelm_lib.config.fields import Section
from oelm_lib.config.messages import GUIDE, describe_errors, did_you_mean, shorten
from oelm_lib.errors import UserError
from oelm_lib.yaml_text import as_yaml, parse_yaml

AROUND_ID = re.compile(r"^(.*/)?params/|\.yaml$")
"""What the name of an experiment's file has beside the id."""


def experiment_ids() -> list[str]:
    """Return the ids of params/<ID>.yaml, sorted; files with other names are skipped."""
    return sorted(path.stem for path in paths.PARAMS.glob("*.yaml") if _has_id(path))


def skipped_files() -> list[str]:
    """Return the names of the files in params/ that are no experiments, e.g. DEMO-02-Copy1.yaml."""
    return sorted(path.name for path in paths.PARAMS.glob("*.yaml") if not _has_id(path))


def _has_id(path: Path) -> bool:
    return re.fullmatch(ID_PATTERN, path.stem) is not None


def experiment_path(exp: str) -> Path:
    """Return the file of an experiment: params/<exp>.yaml."""
    return paths.PARAMS / f"{exp}.yaml"


def find_id(text: Any) -> str:
    """Return the id that a user typed as demo-02, DEMO-02.yaml or params/DEMO-02.yaml.

    Raises:
        UserError: There is no such experiment; the message shows three near ids.
    """
    ids = experiment_ids()
    if not isinstance(text, str):
        raise UserError(f"exp = {shorten(text)} is not an experiment id such as GPT-02; quote it")
    exp = AROUND_ID.sub("", text.strip()).upper()
    if re.fullmatch(ID_PATTERN, exp) and experiment_path(exp).is_file():
        return exp
    near = did_you_mean(exp, ids) or f"; there are {', '.join(ids[:3])}, ..."
    raise UserError(
        f"no experiment {shorten(text)}{near}; `oelm run` lists all, params/<ID>.yaml adds one"
    )


def load_config(exp: str, overrides: dict[str, Any] | str | None = None) -> Experiment:
    """Load the file of an experiment and apply overrides.

    Args:
        exp: Experiment id, e.g. "GPT-02".
        overrides: Dotted keys, as a dict or as "train.max_steps=50 optim.learning_rate=1e-3".

    Raises:
        UserError: Unknown experiment or key, wrong type, value out of range, or a freeze after the
            last step, unless an override of train.max_steps made the run that short.
    """
    exp = find_id(exp)
    path = experiment_path(exp)
    facts = path.stat()
    experiment = _read_experiment(path, (facts.st_ino, facts.st_mtime_ns, facts.st_size))
    values = parse_overrides(overrides)
    if not values:
        return experiment
    known = flatten(experiment)
    for key in values:
        if key not in known:
            raise UserError(
                f"overrides: unknown key {str(key)[:60]}{did_you_mean(str(key), known)};"
                " allowed are the keys of model, data, optim, train and machine"
            )
    overridden = parse_experiment(with_values(experiment, values), f"overrides of {exp}")
    resolved = flatten(overridden)
    overridden._overrides = {key: resolved[key] for key in values if resolved[key] != known[key]}
    if "train.max_steps" not in overridden.overrides:  # a short rehearsal may end before the freeze
        check_freeze(overridden, f"overrides of {exp}")
    return overridden


def check_freeze(experiment: Experiment, where: str) -> None:
    """Raise UserError for a frozen arm that no step freezes; `where` starts the message."""
    if experiment.freeze_problem:
        raise UserError(
            f"{where}: {experiment.freeze_problem}; lower it, or set freeze_q and freeze_k to false"
        )


def with_values(experiment: Experiment, values: dict[str, Any]) -> dict[str, Any]:
    """Return an experiment as in its file, with other values at some dotted keys, unchecked."""
    plain = experiment.to_dict()
    for key, value in values.items():
        section, _, name = key.partition(".")
        plain[section][name] = value
    return plain


def parse_overrides(overrides: dict[str, Any] | str | None) -> dict[str, Any]:
    """Return dotted key -> value of "train.max_steps=50 optim.learning_rate=1e-3".

    Spaces around `=` are allowed; a dict passes through.

    Raises:
        UserError: Not key=value, a key twice, or a value that is not YAML.
    """
    if overrides is None:
        return {}
    if isinstance(overrides, dict):
        return overrides
    if not isinstance(overrides, str):
        raise UserError(
            f'overrides = {shorten(overrides)} is not text such as "train.max_steps=50"; quote it'
        )
    values: dict[str, Any] = {}
    for item in re.split(r"\s+(?=[\w.]+\s*=)", overrides.strip()) if overrides.strip() else ():
        key, equals, text = item.partition("=")
        key = key.strip()
        if not equals or not key:
            raise UserError(f"overrides: {shorten(item)} is not key=value, e.g. train.max_steps=50")
        if key in values:
            raise UserError(f"overrides: {key} is given twice; keep one")
        try:
            values[key] = parse_yaml(text)
        except ValueError:
            raise UserError(
                f"overrides: the value of {key} is not valid YAML: {shorten(text)}"
            ) from None
    return values


def overrides_text(overrides: dict[str, Any]) -> str:
    """Return overrides as one line that parse_overrides reads back to the same values."""
    return " ".join(f"{key}={as_yaml(value)}" for key, value in overrides.items())


def parse_experiment(
    plain: dict[str, Any], where: str, overrides: dict[str, Any] | None = None
) -> Experiment:
    """Validate the mapping of an experiment.

    Args:
        where: Source of the mapping, the start of an error's message.
        overrides: The overrides that are already part of `plain`.

    Raises:
        UserError: With every mistake, on one line.
    """
    experiment = validated(Experiment, plain, where)
    experiment._overrides = overrides or {}
    return experiment


def validated(kind: type[Section], plain: dict[str, Any], where: str, guide: str = GUIDE) -> Any:
    """Validate a mapping as a section of that kind.

    Args:
        where: File or other source of the mapping, for errors.
        guide: File that shows every key, for errors.

    Raises:
        UserError: Every mistake, on one line.
    """
    try:
        return kind.model_validate(plain)
    except ValidationError as error:
        known = kind.model_fields if kind is not Experiment else _experiment_keys()
        mistakes = describe_errors(error, known, guide).values()
        raise UserError(f"{where}: {'; '.join(mistakes)}") from None


@functools.lru_cache(maxsize=256)
def _read_experiment(path: Path, stamp: tuple[int, ...]) -> Experiment:
    """Read an experiment file and cache it; `stamp` changes when the file does."""
    plain, where = read_yaml(path), paths.relative_path(path)
    if plain.get("id") != path.stem:
        raise UserError(
            f"{where}: id is {shorten(plain.get('id'))}; write {path.stem}, the name of the file"
        )
    experiment = parse_experiment(plain, where)
    check_freeze(experiment, where)
    return experiment


def _experiment_keys() -> list[str]:
    keys = [name for name in Experiment.model_fields if name not in SECTIONS]
    for name in SECTIONS:
        section = Experiment.model_fields[name].annotation
        keys += [f"{name}.{key}" for key in section.model_fields]
    return keys


def read_yaml(path: Path, guide: str = GUIDE) -> dict[str, Any]:
    """Read a YAML mapping; `guide` is a file that shows every key.

    Raises:
        UserError: The file cannot be read, or the place of a mistake.
    """
    where = paths.relative_path(path)
    try:
        plain = parse_yaml(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UserError(f"{where}: not valid YAML: {error}; correct the file") from None
    except OSError as error:
        raise UserError(
            f"{where}: cannot be read: {error.strerror}; check the name and its permissions"
        ) from None
    if not isinstance(plain, dict):
        raise UserError(
            f"{where}: holds {type(plain).__name__}, not a mapping of keys; see {guide}"
        )
    return plain
