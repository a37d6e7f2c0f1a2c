"""Names of experiments as people type them."""

import fnmatch
from pathlib import PurePath

from oelm_lib import config
from oelm_lib.errors import UserError


def experiments_named(names: list[str]) -> list[str]:
    """Return the experiment ids meant by ids, files of params/ or globs, each once.

    `demo-02` and `params/DEMO-02.yaml` mean DEMO-02.

    Raises:
        UserError: A glob matches no experiment.
    """
    ids: list[str] = []
    for name in names:
        pattern = experiment_name(name)
        matches = [pattern]
        if any(character in pattern for character in "*?["):
            matches = fnmatch.filter(config.experiment_ids(), pattern)
        if not matches:
            raise UserError(
                f"{name!r} matches no experiment; allowed: {', '.join(config.experiment_ids())}"
            )
        ids += [exp for exp in matches if exp not in ids]
    return ids


def experiment_name(text: str) -> str:
    """Return the id or glob meant by a file name or by lower-case letters."""
    name = PurePath(text).name.removesuffix(".yaml").removesuffix(".yml")
    return name.upper()
