"""The project's own experiments, beside which a user's may lie."""

import shutil
from pathlib import Path

from oelm_lib.config import PARAMS

GPT = [f"GPT-{number:02}" for number in range(1, 18)]
SMALL = [f"{family}-{number:02}" for family in ("DEMO", "CPU") for number in range(1, 5)]
IDS = [*GPT, *SMALL, "MQAR-01", "MQAR-02"]


def copy_params(folder: Path) -> Path:
    """Copy params/ into a folder, with the project's own experiments; returns the copy."""
    copy = folder / "params"
    shutil.copytree(PARAMS, copy)
    for path in copy.glob("*.yaml"):
        if path.stem not in IDS:
            path.unlink()
    return copy
