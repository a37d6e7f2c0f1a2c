"""Runs of a few hundred tiny steps that can be killed, and compared with undisturbed ones."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.clocked import without_clock
from tests.conftest import TINY_RUN

CHANGES = TINY_RUN | {"train.max_steps": 300, "train.eval_interval": 12, "train.save_interval": 5}


def record(path):
    """All of a finished run that must not depend on what happened to it."""
    from oelm_lib.training import checkpoint

    rows = [json.loads(line) for line in (path / "metrics.jsonl").read_text().splitlines()]
    summary = json.loads((path / "summary.json").read_text())
    states = [checkpoint.load(path / name) for name in ("latest.pt", "best.pt")]
    return {
        "rows": without_clock(rows),
        "summary": without_clock([summary]),
        "states": [
            {
                key: state[key]
                for key in (
                    "model",
                    "optimizer",
                    "scaler",
                    "step",
                    "best",
                    "evals",
                    "frozen",
                    "random",
                )
            }
            for state in states
        ],
    }


def equal(left, right):
    """Whether two nested values are equal, tensors to the bit."""
    import torch

    if isinstance(left, torch.Tensor):
        return left.dtype == right.dtype and torch.equal(left, right)
    if isinstance(left, dict):
        return left.keys() == right.keys() and all(equal(left[key], right[key]) for key in left)
    if isinstance(left, list | tuple):
        return len(left) == len(right) and all(map(equal, left, right))
    return left == right


def leftovers(path):
    """Temporary and hidden files of a run folder."""
    return sorted(
        file.name for file in path.iterdir() if file.name.startswith(".") or file.suffix == ".tmp"
    )


@pytest.fixture
def oelm(stories, tmp_path):
    """A function that starts `oelm` in its own process group, its runs below this test's folder."""
    processes = []

    def start(*arguments, outputs=tmp_path / "outputs", **environment):
        settings = os.environ | {
            "OELM_DATA": str(stories),
            "OELM_OUTPUTS": str(outputs),
            "OMP_NUM_THREADS": "1",
            **environment,
        }
        process = subprocess.Popen(
            [sys.executable, "-m", "oelm_lib.cli", *arguments],
            env=settings,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        processes.append(process)
        return process

    yield start
    for process in processes:
        if process.poll() is None:
            process.kill()
        process.communicate()


def settings(**changes):
    """Arguments of `oelm run` for a tiny run."""
    pairs = CHANGES | {key.replace("__", "."): value for key, value in changes.items()}
    return [part for key, value in pairs.items() for part in ("--set", f"{key}={value}")]


def only_run(outputs) -> Path:
    """The one run folder there."""
    from oelm_lib import runs

    (path,) = runs.find_runs(outputs)
    return path
