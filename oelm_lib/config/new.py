"""Write a new experiment from one that exists."""

import re
from pathlib import Path
from typing import Any

from oelm_lib.config.changes import change_words, changes_line, diff_configs
from oelm_lib.config.experiment import ID_PATTERN, ID_WORDS, SECTIONS, Experiment
from oelm_lib.config.load import check_freeze, experiment_path, load_config, parse_experiment
from oelm_lib.config.messages import shorten
from oelm_lib.errors import UserError
from oelm_lib.files import as_user_error, write_text
from oelm_lib.yaml_text import as_yaml

NO_BASELINE = "none"
"""Value of `compare_to` for a new experiment that is itself a baseline."""


def new_experiment(
    base_id: str,
    new_id: str,
    overrides: dict[str, Any] | str | None = None,
    *,
    compare_to: str | None = None,
    title: str | None = None,
    question: str | None = None,
) -> str:
    """Return the YAML of a new experiment, with `changes` computed; nothing is written.

    Args:
        base_id: Experiment whose values it takes.
        new_id: Its id, such as DEMO-05.
        overrides: Keys that differ from base_id, as in `load_config`.
        compare_to: Its baseline; None: that of base_id, or base_id where that is a baseline;
            "none": the new experiment is a baseline.
        title: None: the title of base_id and the overrides.
        question: None: what everything that differs from compare_to does.

    Raises:
        UserError: The id is not valid or exists, or an override is not valid.
    """
    check_new_id(new_id)
    values = load_config(base_id, overrides)
    baseline, changes = None, {}
    if compare_to != NO_BASELINE:
        baseline = load_config(compare_to or values.compare_to or values.id)
        changes = {key: new for key, (_, new) in diff_configs(baseline, values).items()}
    arm = ", ".join(change_words(values.overrides))
    plain = values.to_dict() | {
        "id": new_id,
        "slug": _slug(values),
        "title": title or (f"{values.title}, {arm}" if arm else values.title),
        "question": question or _question(changes, baseline),
        "compare_to": baseline.id if baseline else None,
        "changes": list(changes),
    }
    experiment = parse_experiment(plain, f"new experiment {new_id}")
    check_freeze(experiment, f"new experiment {new_id}")
    return experiment_yaml(experiment)


def save_experiment(new_id: str, text: str) -> Path:
    """Write the YAML of new_experiment as params/<new_id>.yaml; returns the path.

    Raises:
        UserError: The id is not valid or exists, or the folder cannot be written.
    """
    check_new_id(new_id)
    path = experiment_path(new_id)
    with as_user_error(path, "cannot be written", "; nothing was saved"):
        write_text(path, text)
    return path


def check_new_id(new_id: str) -> None:
    """Raise UserError where an id is not valid, or an experiment has it."""
    if not isinstance(new_id, str) or not re.fullmatch(ID_PATTERN, new_id):
        raise UserError(f"id = {shorten(new_id)}: should be {ID_WORDS}")
    if experiment_path(new_id).exists():
        raise UserError(f"params/{new_id}.yaml exists; choose another id, or edit that file")


def experiment_yaml(experiment: Experiment) -> str:
    """Return the file of an experiment: its keys in order, those with their default left out."""
    plain = experiment.to_dict()
    lines = [
        f"{key}: {as_yaml(plain[key])}" for key in ("id", "slug", "title", "question", "compare_to")
    ]
    lines.append(changes_line(plain["changes"]))
    for name in SECTIONS:
        section = getattr(experiment, name)
        fields = type(section).model_fields.items()
        keys = [key for key, field in fields if getattr(section, key) != field.default]
        if keys:
            lines.append(f"{name}:")
            lines += [f"  {key}: {as_yaml(plain[name][key])}" for key in keys]
    return "\n".join(lines) + "\n"


def _question(changes: dict[str, Any], against: Experiment | None) -> str:
    """Return what an experiment asks: what its differences from its baseline do."""
    if against is None:
        return "What perplexity does this baseline reach?"
    words = ", ".join(change_words(changes)) or "a repetition"
    return f"What is the effect of {words}, against {against.id}?"


def _slug(experiment: Experiment) -> str:
    """Slug of the base with the overrides, <key>_<value> each, for the run folder."""
    changed = [f"{key.rpartition('.')[2]}_{value}" for key, value in experiment.overrides.items()]
    words = re.sub(r"[^a-z0-9]+", "_", "_".join([experiment.slug, *changed]).lower())
    return words[:60].strip("_")
