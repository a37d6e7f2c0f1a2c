"""Error messages about configs: the key, what was found, what is allowed, the nearest names."""

import difflib
import reprlib
from collections.abc import Iterable
from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails

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
BOUNDS = {
    "greater_than": ("above", "gt"),
    "greater_than_equal": ("at least", "ge"),
    "less_than": ("below", "lt"),
    "less_than_equal": ("at most", "le"),
}
"""Type of a pydantic error -> the bound in words, and its key in the error's context."""
KINDS = {
    "int_": "a whole number",
    "float_": "a number",
    "finite_number": "a finite number",
    "bool_": "true or false",
    "string_type": "text",
    "list_": "a list",
    "tuple_": "a list",
    "dict_": "a mapping of keys",
    "model_": "a mapping of keys",
}
"""Start of the type of a pydantic error -> the kind of value that is allowed."""


def describe_errors(
    error: ValidationError, known_keys: Iterable[str] = (), guide: str = GUIDE
) -> dict[tuple[str | int, ...], str]:
    """Word the errors of a pydantic model: place of the value -> what is wrong with it.

    The errors of one value are joined in one phrase. Where only a part of the value is wrong, that
    part is named alone.

    Args:
        known_keys: Names that an unknown key may have meant.
        guide: File that shows every key.
    """
    places: dict[tuple[str | int, ...], list[ErrorDetails]] = {}
    for item in error.errors(include_url=False):
        # The kinds that pydantic tried are parts of the location too: literal['all'], tuple[...].
        place = tuple(part for part in item["loc"] if isinstance(part, int) or "[" not in part)
        places.setdefault(place, []).append(item)
    return {
        place: _phrase(".".join(map(str, place)), items, known_keys, guide)
        for place, items in places.items()
        if not any(place == other[: len(place)] for other in places if other != place)
    }


def _phrase(key: str, items: list[ErrorDetails], known_keys: Iterable[str], guide: str) -> str:
    """Word the errors of one place."""
    item = items[0]
    message = item["msg"].removeprefix("Value error, ")
    if item["type"] == "extra_forbidden":
        return f"unknown key {key}{did_you_mean(key, known_keys)}"
    if item["loc"] and item["loc"][-1] == "[key]":
        return f"unknown key {key}; allowed: {_allowed(item)}"
    if item["type"] == "missing":
        return f"{key} is missing; see {guide}"
    if item["type"] == "value_error":
        return f"{key}: {message}" if key else message
    allowed = " or ".join(dict.fromkeys(map(_allowed, items)))
    return f"{key} = {shorten(item['input'])}: should be {allowed}"


def _allowed(item: ErrorDetails) -> str:
    """Return what is allowed in place of a value."""
    name, context = item["type"], item.get("ctx", {})
    if name == "literal_error":
        return context["expected"].replace("'", "")
    if name in BOUNDS:
        words, key = BOUNDS[name]
        return f"{words} {context[key]:,}"
    for start, kind in KINDS.items():
        if name.startswith(start):
            is_number = kind == "a list" and type(item["input"]) in (int, float)
            return f"a list such as [{shorten(item['input'])}]" if is_number else kind
    if name in ("too_short", "string_too_short"):
        kind = "text" if name.startswith("string") else "a list"
        return f"{kind} of length {context['min_length']} or more"
    if name == "too_long":
        return f"a list of length {context['max_length']} or less"
    return item["msg"].removeprefix("Input ").removeprefix("should be ")


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Return " (did you mean A, B or C?)" with up to NEAREST similar names, "" if none is near.

    A name of another code base means ours alone. Dotted names also match by their last part; of
    those that share it, the last one.
    """
    names = list(known)
    by_tail = {name.rpartition(".")[2]: name for name in names}
    tail = word.rpartition(".")[2]
    if alias := by_tail.get(ALIASES.get(tail, "")):
        near = [alias]
    else:
        near = difflib.get_close_matches(word, names, NEAREST, 0.6)
        near += [by_tail[match] for match in difflib.get_close_matches(tail, by_tail, NEAREST, 0.6)]
    if not near:
        return ""
    *first, last = list(dict.fromkeys(near))[:NEAREST]
    return f" (did you mean {', '.join(first)}{' or ' if first else ''}{last}?)"


def shorten(value: Any) -> str:
    """repr of a value, cut to one short line."""
    cut = reprlib.Repr()
    cut.maxstring = cut.maxother = 60
    text = cut.repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
