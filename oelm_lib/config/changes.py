"""`compare_to` and `changes`: an experiment declares what it changes against its baseline."""

from oelm_lib.config.diff import diff_configs
from oelm_lib.config.experiment import Experiment
from oelm_lib.config.load import experiment_ids, load_config
from oelm_lib.config.messages import did_you_mean
from oelm_lib.yaml_text import dump_yaml


def changed_keys(experiment: Experiment, compare_to: str | None) -> list[str]:
    """Return the dotted keys in which an experiment differs from another; [] for None."""
    return list(diff_configs(load_config(compare_to), experiment)) if compare_to else []


def check_changes(experiment: Experiment) -> list[str]:
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
    keys = changed_keys(experiment, base)
    if sorted(keys) == sorted(experiment.changes):
        return []
    line = changes_line(keys)
    if base is None:
        return [f"{where}: compare_to is null, so nothing is changed; write `{line}`"]
    return [f"{where}: changes is not what differs from {base}; write `{line}`"]


def changes_line(keys: list[str]) -> str:
    """Return the line of a file that declares these keys."""
    return f"changes: {dump_yaml(keys, one_line=True)}"
