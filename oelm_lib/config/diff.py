"""What differs between two experiments."""

from typing import Any

from oelm_lib.config.experiment import Experiment, OptimConfig
from oelm_lib.config.messages import shorten
from oelm_lib.config.model import ModelConfig

WORDS = {"model.qk_scale": "Q/K rows of norm "}
"""Dotted key -> what it is called where its name would not be understood."""


def diff_configs(first: Experiment, second: Experiment) -> dict[str, tuple[Any, Any]]:
    """Return dotted key -> (first value, second value) of every scientific key that differs."""
    return diff_science(first.science, second.science)


def diff_science(first: dict[str, Any], second: dict[str, Any]) -> dict[str, tuple[Any, Any]]:
    """Return diff_configs of two `science`; a key that a record lacks has its value for "off"."""
    first, second = default_science() | first, default_science() | second
    return {
        key: (first.get(key), value) for key, value in second.items() if first.get(key) != value
    }


def change_words(changes: dict[str, Any]) -> list[str]:
    """Return changed keys as parts of a title: `Q/K rows of norm 2.0`, `dropout=0.1`."""
    return [
        (WORDS.get(key) or f"{key.rpartition('.')[2]}=")
        + (value if isinstance(value, str) else shorten(value))
        for key, value in changes.items()
    ]


def default_science() -> dict[str, Any]:
    """Return dotted key -> default of the scientific keys that a file may leave out."""
    return {
        f"{name}.{key}": list(field.default) if field.default == () else field.default
        for name, section in (("model", ModelConfig), ("optim", OptimConfig))
        for key, field in section.model_fields.items()
        if not field.is_required()
    }
