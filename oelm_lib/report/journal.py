"""The experiment log as Markdown, regenerated from run folders and recorded results.

templates/journal.md.j2 and a file of templates/journal/ for each section hold its structure,
templates/journal.yaml its words in both languages.
"""

import functools
import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
from markupsafe import Markup

from oelm_lib.config import read_yaml
from oelm_lib.errors import UserError
from oelm_lib.files import as_user_error, write_text
from oelm_lib.report.journal_facts import gather
from oelm_lib.report.render import TEMPLATES, environment
from oelm_lib.units import format_duration

LANGUAGES = ("en", "zh")
MARK = "<!-- oelm journal: regenerated; only text between notes markers is kept -->"
NOTES = re.compile(r"<!-- notes: (\w+) -->\n(.*?)<!-- /notes -->", re.DOTALL)
HAN_SPACE = re.compile(r"(?<=[\u4e00-\u9fff]) (?=[\u4e00-\u9fff])")
"""A space between two Chinese characters, where a name was filled in."""
SPECIAL = re.compile(r"([\\|\[\]`*])")
"""Characters that would start a table cell, a link, code or emphasis in Markdown."""


def journal(
    outputs: Path | str | None = None,
    language: str = "en",
    path: Path | str | None = None,
    rehearsals: bool = False,
) -> str:
    """Return the experiment log as Markdown; every number in it comes from a file.

    Args:
        outputs: Folder of the run folders; default config.outputs_dir().
        language: `en` or `zh`.
        path: File to write. Hand-written notes between its markers are kept.
        rehearsals: Whether runs with overrides are listed too.

    Raises:
        UserError: Unknown language; `path` is not a journal, has a damaged marker, or cannot be
            written.
    """
    if language not in LANGUAGES:
        allowed = " or ".join(LANGUAGES)
        raise UserError(f"language = {language!r} is not a language of the journal; use {allowed}")
    notes = _read_notes(Path(path)) if path else {}
    facts, phrase = gather(outputs, rehearsals), _phrases(language)
    template = _environment(language, facts).get_template("journal.md.j2")
    text = template.render(facts, mark=Markup(MARK), notes=notes, t=phrase, language=language)
    if path:
        with as_user_error(path, "cannot be written", ", or choose another --output"):
            write_text(Path(path), text)
    return text


def escape(value: Any) -> Markup:
    """Return text that is only text in Markdown: no HTML, table cell, link, code or emphasis."""
    if isinstance(value, Markup):
        return value
    text = re.sub(r"\s+", " ", str(value)).replace("&", "&amp;").replace("<", "&lt;")
    return Markup(SPECIAL.sub(r"\\\1", text))


def _environment(language: str, facts: dict[str, Any]) -> Any:
    """Return a template environment that escapes every value, with the journal's formats."""
    made = environment(keep_trailing_newline=True, autoescape=True, finalize=escape)
    space = " " if language == "en" else ""

    def percent(value: float, digits: int = 2, sign: str = "+") -> str:
        return "-" if pd.isna(value) else f"{100 * value:{sign}.{digits}f}{space}%"

    def limit(value: float) -> str:
        return f"{100 * value:g}{space}%"

    def rate(value: float) -> str:
        return "-" if pd.isna(value) else re.sub(r"\.?0*e-0?", "e-", f"{value:.2e}")

    def number(value: float, digits: int = 0) -> str:
        return "-" if pd.isna(value) else f"{value:,.{digits}f}"

    made.filters |= {
        "percent": percent,
        "limit": limit,
        "rate": rate,
        "num": number,
        "arm": lambda name: _translate(name, language),
        "corpus": lambda name: _translate(facts["corpora"].get(name, name or "-"), language),
        "signed": lambda value: "-" if pd.isna(value) else f"{value:+.4f}",
        "time": lambda text: (text or "-")[:16].replace("T", " "),
        "duration": lambda value: "-" if pd.isna(value) else format_duration(math.floor(value)),
        "code": lambda text: Markup(str(text).strip().replace("```", "` ` `")),
        "word": lambda text: Markup(re.sub(r"[`|\s]+", " ", str(text)).strip()),
    }
    made.tests["known"] = pd.notna
    return made


@functools.cache
def _words() -> dict[str, Any]:
    """Return journal.yaml: its `phrases` in both languages, and its `terms` in Chinese."""
    return read_yaml(TEMPLATES / "journal.yaml")


def _phrases(language: str) -> Callable[..., Markup]:
    """Return a function from a key and values to a phrase; of an unknown key, the key as text."""
    phrases = _words()["phrases"]

    def phrase(key: str, **values: Any) -> Markup:
        if key not in phrases:
            return escape(key)
        escaped = {name: escape(value) for name, value in values.items()}
        return Markup(HAN_SPACE.sub("", phrases[key][language].format(**escaped)))

    return phrase


def _translate(name: str, language: str) -> str:
    """Return the name of an arm or corpus, in Chinese with its terms translated."""
    if language == "en":
        return name
    for english, chinese in _words()["terms"].items():
        name = re.sub(rf"\b{re.escape(english)}\b", chinese, name)
    return name.replace(", ", "，")


def _read_notes(path: Path) -> dict[str, Markup]:
    """Return the hand-written notes of an earlier journal by section."""
    try:
        text = path.read_text(encoding="utf-8") if path.exists() else MARK
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot be read: {error}; choose another --output") from None
    notes = dict(NOTES.findall(text))
    if MARK not in text:
        raise UserError(
            f"{path}: not written by oelm journal, so it is left alone;"
            " choose another --output or move it"
        )
    if not text.count("<!-- notes: ") == text.count("<!-- /notes -->") == len(notes):
        raise UserError(
            f"{path}: a notes marker is missing or doubled, and notes would be lost; fix it by hand"
        )
    return {section: Markup(note) for section, note in notes.items() if note.strip()}
