"""What differs between experiments; `compare_to` and `changes` declare it against a baseline."""

from typing import Any

from oelm_lib.config.experiment import Experiment, OptimConfig
from oelm_lib.config.load import experiment_ids, load_config
from oelm_lib.config.messages import did_you_mean, shorten
from oelm_lib.config.model import ModelConfig
from oelm_lib.errors import UserError
from oelm_lib.yaml_text import as_yaml

FREEZE = {
    "model.freeze_q",
    "model.freeze_k",
    "model.qk_init",
    "model.qk_scale",
    "model.frozen_layers",
    "model.freeze_from",
    "model.freeze_until",
}
ABSORBED = {
    "model.qk_tied",
    "model.qk_input_gain",
    "model.qk_gain",
    "model.head_mixing",
    "model.head_temperature",
    "model.qk_core",
    "model.delta_rank",
}
"""Additions linear in the q or k of one position: trained W_q and W_k can express the same."""
TUNED = {"optim.learning_rate", "optim.min_learning_rate", "optim.groups"}
"""Keys that each arm may have at its own best value; a difference is a warning."""


def diff_configs(first: Experiment, second: Experiment) -> dict[str, tuple[Any, Any]]:
    """Return dotted key -> (first value, second value) of every scientific key that differs."""
    return diff_science(first.science, second.science)


def diff_science(first: dict[str, Any], second: dict[str, Any]) -> dict[str, tuple[Any, Any]]:
    """Return diff_configs of two `science`; a key that a record lacks has its value for "off"."""
    first, second = _default_science() | first, _default_science() | second
    return {
        key: (first.get(key), value) for key, value in second.items() if first.get(key) != value
    }


def change_words(changes: dict[str, Any]) -> list[str]:
    """Return changed keys as parts of a title: `Q/K rows of norm 2.0`, `dropout=0.1`."""
    words = []
    for key, value in changes.items():
        text = value if isinstance(value, str) else shorten(value)
        if key == "model.qk_scale":
            words.append(f"Q/K rows of norm {text}")
        else:
            words.append(f"{key.rpartition('.')[2]}={text}")
    return words


def _default_science() -> dict[str, Any]:
    """Return dotted key -> default of the scientific keys that a file may leave out."""
    return {
        f"{name}.{key}": [] if field.default == () else field.default
        for name, section in (("model", ModelConfig), ("optim", OptimConfig))
        for key, field in section.model_fields.items()
        if not field.is_required()
    }


def change_problems(experiment: Experiment) -> list[str]:
    """Check `compare_to` and `changes` of an experiment's file as it stands.

    Returns:
        One line per problem, with the line to paste; [] if there is none.
    """
    if experiment.science_overrides:
        experiment = load_config(experiment.id)
    where, base = f"params/{experiment.id}.yaml", experiment.compare_to
    if base == experiment.id:
        return [f"{where}: compare_to is the experiment itself; name its baseline or write null"]
    if base is not None and base not in experiment_ids():
        near = did_you_mean(base, experiment_ids())
        return [
            f"{where}: compare_to names {base}, which is no experiment{near}; name its baseline"
        ]
    keys = list(diff_configs(load_config(base), experiment)) if base else []
    if sorted(keys) == sorted(experiment.changes):
        return []
    line = changes_line(keys)
    if base is None:
        return [f"{where}: compare_to is null, so nothing is changed; write `{line}`"]
    return [f"{where}: changes is not what differs from {base}; write `{line}`"]


def extra_changes(experiment: Experiment, baseline: Experiment) -> list[str]:
    """Return what differs between a frozen arm and its trained baseline besides the freeze.

    What trained Q and K can express (ABSORBED) and tuned rates (TUNED) do not count. Empty where
    the arm is not frozen, or its baseline is frozen too: their gap is that of the other keys.
    """
    if not experiment.freezes or baseline.freezes:
        return []
    return [
        f"{key} = {as_yaml(new)} (baseline: {as_yaml(old)})"
        for key, (old, new) in diff_configs(baseline, experiment).items()
        if key not in FREEZE | ABSORBED | TUNED
    ]


def confound_warning(experiment: Experiment, baseline: Experiment) -> str:
    """Return a line on the keys by which a frozen arm is confounded with the freeze, or ""."""
    changes = extra_changes(experiment, baseline)
    if not changes:
        return ""
    return (
        f"{', '.join(changes)}: a gap to {baseline.id} is not the effect of freezing alone and gets"
        f" no PASS; name a baseline with the same value{'s' * (len(changes) > 1)}"
    )


def change_warnings(exp: str) -> list[str]:
    """Return what weakens the comparison of an experiment with its baseline, before it is run.

    These are the lines of `change_problems` and `confound_warning`, for its file as it stands.
    """
    experiment, lines = load_config(exp), []
    try:
        lines = change_problems(experiment)
        baseline = load_config(experiment.compare_to) if experiment.compare_to else None
    except UserError as error:  # the baseline's file is missing, or has a mistake
        return lines or [str(error)]
    confound = confound_warning(experiment, baseline) if baseline else ""
    return [*lines, *([f"{experiment.id}: {confound}"] if confound else [])]


def changes_line(keys: list[str]) -> str:
    """Return the line of a file that declares these keys."""
    return f"changes: {as_yaml(keys)}"
