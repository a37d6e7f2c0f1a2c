"""What differs between two experiments."""

from typing import Any

from oelm_lib.config.experiment import Experiment, OptimConfig
from oelm_lib.config.model import ModelConfig


def diff_configs(first: Experiment, second: Experiment) -> dict[str, tuple[Any, Any]]:
    """Return dotted key -> (first value, second value) of every scientific key that differs."""
    return diff_science(first.science, second.science)


def diff_science(first: dict[str, Any], second: dict[str, Any]) -> dict[str, tuple[Any, Any]]:
    """Return diff_configs of two `science`; a key that a record lacks has its value for "off"."""
    first, second = default_science() | first, default_science() | second
    return {
        key: (first.get(key), value) for key, value in second.items() if first.get(key) != value
    }


def default_science() -> dict[str, Any]:
    """Return dotted key -> default of the scientific keys that a file may leave out."""
    return {
        f"{name}.{key}": list(field.default) if field.default == () else field.default
        for name, section in (("model", ModelConfig), ("optim", OptimConfig))
        for key, field in section.model_fields.items()
        if not field.is_required()
    }
