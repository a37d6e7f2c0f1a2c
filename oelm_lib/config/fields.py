"""Types that the sections of an experiment are made of."""

import re
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field
from pydantic_core import PydanticCustomError

NUMBER = r"[-+]?([0-9]+\.?[0-9]*|\.[0-9]+)(e[-+]?[0-9]+)?"


def _plain_number(value: Any) -> Any:
    """Refuse true, which passes for 1.0, and text that float() accepts beyond decimal numbers."""
    is_text = isinstance(value, str) and not re.fullmatch(NUMBER, value.lower())
    if isinstance(value, bool) or is_text:
        raise PydanticCustomError("number", "should be a number")
    return value


def matches(pattern: str, words: str) -> AfterValidator:
    """Return a check that a text matches a regular expression; `words` say which texts do."""

    def check(value: str) -> str:
        if not re.fullmatch(pattern, value):
            raise PydanticCustomError("text", "should be {words}", {"words": words})
        return value

    return AfterValidator(check)


def _utf8(value: str) -> str:
    """Refuse lone surrogates, which Python reads in place of bytes that are not UTF-8."""
    try:
        value.encode()
    except UnicodeEncodeError:
        raise PydanticCustomError("text", "should be UTF-8 text") from None
    return value


def on_or_off(value: Any) -> Any:
    """Return on or off for a bool: `machine.compile=true` means on."""
    return {True: "on", False: "off"}[value] if isinstance(value, bool) else value


Text = Annotated[str, AfterValidator(_utf8)]
Real = Annotated[float, BeforeValidator(_plain_number)]
LARGEST = 10**12
"""Largest whole number of a config: products of a few stay below what records may hold."""
Count = Annotated[int, Field(strict=True, ge=1, le=LARGEST)]
Whole = Annotated[int, Field(strict=True, ge=0, le=LARGEST)]
Flag = Annotated[bool, Field(strict=True)]
Layers = Literal["all"] | tuple[Annotated[int, Field(strict=True, ge=0)], ...]


class Section(BaseModel):
    """Frozen group of keys; unknown keys are refused."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, allow_inf_nan=False, use_attribute_docstrings=True
    )


class SplitCounts(Section):
    """A number of each split of a generated corpus."""

    train: Count
    validation: Count
    test: Count
