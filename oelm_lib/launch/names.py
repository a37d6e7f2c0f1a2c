"""Experiments and seeds as people type them."""

import fnmatch
import re

from oelm_lib import config
from oelm_lib.config import find_id
from oelm_lib.config.messages import did_you_mean
from oelm_lib.errors import UserError
from oelm_lib.runs.names import is_glob


def experiments_named(names: list[str]) -> list[str]:
    """Return the experiment ids meant by ids, files of params/ or globs, each once.

    `demo-02`, `params/DEMO-02.yaml` and `demo-0*` are understood.

    Raises:
        UserError: There is no such experiment, or a glob matches none.
    """
    ids: list[str] = []
    for name in names:
        for exp in _matching(name) if is_glob(name) else [find_id(name)]:
            if exp not in ids:
                ids.append(exp)
    return ids


def parse_seeds(text: str, name: str = "seeds") -> list[int]:
    """Return the whole numbers of "42,43,44", each once.

    Args:
        name: What the text is called in the error.

    Raises:
        UserError: The text is something else.
    """
    parts = [part.strip() for part in text.split(",") if part.strip()]
    if not parts or not all(re.fullmatch("[0-9]{1,18}", part) for part in parts):
        shown = text if len(text) < 100 else text[:100] + "..."
        raise UserError(
            f"{name} {shown!r} should be whole numbers of at most 18 digits separated by commas,"
            " e.g. 42,43,44"
        )
    return list(dict.fromkeys(int(part) for part in parts))


def _matching(pattern: str) -> list[str]:
    """Return the ids that match a glob, in either case of letters."""
    known = config.experiment_ids()
    matches = fnmatch.filter(known, pattern.upper())
    if not matches:
        near = did_you_mean(re.sub(r"[*?\[\]]", "", pattern).upper(), known)
        raise UserError(f"{pattern!r} matches no experiment{near}; `oelm run` lists all")
    return matches
