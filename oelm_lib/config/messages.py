"""Error messages about configs: the key, what was found, what is allowed, the nearest names."""

import difflib
import reprlib
from collections.abc import Iterable
from typing import Any

ALIASES = {
    "lr": "learning_rate",
    "n_head": "num_heads",
    "n_layer": "num_layers",
    "n_embd": "d_model",
}
"""Names from other code bases -> ours."""
NEAREST = 3
GUIDE = "params/GPT-01.yaml"
"""File that shows every key of an experiment."""


def describe_error(item: dict[str, Any], known_keys: Iterable[str], guide: str = GUIDE) -> str:
    """Word one pydantic error as one phrase; `guide` is a file that shows every key."""
    # The location of an error in a union ends in the branch that pydantic tried, as type[...].
    key = ".".join(str(part) for part in item["loc"] if isinstance(part, int) or "[" not in part)
    message = item["msg"].removeprefix("Value error, ").replace("Input should", "should")
    if item["type"] == "extra_forbidden":
        return f"unknown key {key}{did_you_mean(key, known_keys)}"
    if item["type"] == "missing":
        return f"{key} is missing; see {guide}"
    if item["type"] == "value_error":
        return f"{key}: {message}" if key else message
    if item["type"] == "bool_type":
        message += ", true or false"
    return f"{key} = {shorten(item['input'])}: {message}"


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Return " (did you mean A, B or C?)" with the nearest known names, "" if none is near.

    Dotted names also match by their last part, as far as that is unique.
    """
    near = nearest(word, known)
    if not near:
        return ""
    *first, last = near
    return f" (did you mean {', '.join(first)}{' or ' if first else ''}{last}?)"


def nearest(word: str, known: Iterable[str]) -> list[str]:
    """Return up to three known names similar to `word`, the most similar first."""
    names = list(known)
    by_tail = {name.rpartition(".")[2]: name for name in names}
    tail = word.rpartition(".")[2]
    alias = by_tail.get(ALIASES.get(tail, ""))
    if alias:
        return [alias]
    near = difflib.get_close_matches(word, names, NEAREST, 0.6)
    near += [by_tail[match] for match in difflib.get_close_matches(tail, by_tail, NEAREST, 0.6)]
    return list(dict.fromkeys(near))[:NEAREST]


def shorten(value: Any) -> str:
    """repr of a value, cut to one short line."""
    cut = reprlib.Repr()
    cut.maxstring = cut.maxother = 60
    text = cut.repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
