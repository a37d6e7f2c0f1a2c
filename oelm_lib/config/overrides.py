"""Overrides of an experiment's keys, as text and as a dict."""

import re
from typing import Any

from oelm_lib.config.messages import shorten
from oelm_lib.errors import UserError
from oelm_lib.yaml_text import dump_yaml, parse_yaml


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


def as_text(overrides: dict[str, Any]) -> str:
    """Return overrides as one line that parse_overrides reads back to the same values."""
    return " ".join(f"{key}={dump_yaml(value, one_line=True)}" for key, value in overrides.items())
