"""SIGKILL at random moments of a run, again and again; `make faults` is the long form."""

import contextlib
import os
import random
import signal
import time
from collections import Counter

import pytest

from oelm_lib import config, runs, training
from oelm_lib.errors import UserError
from oelm_lib.training import checkpoint
from tests.faults.conftest import CHANGES, equal, leftovers, record

KILLS = 100 if os.environ.get("OELM_FAULTS") == "long" else 8


def forked_train(cfg, seed, outputs):
    """Train in a child process, which starts with everything imported; returns its number."""
    child = os.fork()
    if child:
        return child
    code = 1
    try:
        quiet = os.open(os.devnull, os.O_WRONLY)
        os.dup2(quiet, 1)
        run = runs.open_run(cfg, seed, outputs)
        training.train(run)
        code = 0
    finally:
        os._exit(code)


def kill_at(child, path, from_start, delay, in_a_save):
    """Kill the child `delay` seconds after its start or its first step.

    Args:
        in_a_save: Wait for the next save after that.

    Returns:
        Where it was killed, or None where it had ended.
    """
    end = time.monotonic() + delay if from_start else None
    while (
        end is None or time.monotonic() < end or (in_a_save and not any(path.glob(".*.pt.*.tmp")))
    ):
        if os.waitpid(child, os.WNOHANG)[0]:
            return None
        if end is None and (runs.read_status(path) or {}).get("pid") == child:
            end = time.monotonic() + delay
        time.sleep(0.0005)
    os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    if not os.WIFSIGNALED(status):
        return None
    if any(path.glob(".*.pt.*.tmp")):
        return "inside a save"
    status = runs.read_status(path)
    return status["state"] if status and status["pid"] == child else "set-up"


def torn_files(path):
    """Files that a killed writer left half-written under their real names."""
    torn = []
    for name in ("latest.pt", "latest.prev.pt", "best.pt"):
        with contextlib.suppress(FileNotFoundError):
            try:
                checkpoint.load(path / name)
            except (checkpoint.DamagedError, UserError):
                torn.append(name)
    for name, read in {
        "status": runs.read_status,
        "summary": runs.read_summary,
        "timing": runs.read_timing,
    }.items():
        try:
            read(path)
        except UserError:
            torn.append(name)
    if (path / "config.yaml").is_file():
        runs.read_config(path)
    runs.read_metrics(path)  # its torn last line is dropped
    return torn


@pytest.mark.slow
def test_a_run_killed_at_random_moments_ends_bit_equal(stories, monkeypatch, tmp_path, capsys):
    monkeypatch.setenv("OELM_DATA", str(stories))
    cfg = config.load_config("DEMO-02", CHANGES)
    draw, hits, resumes, seed = random.Random(0), Counter(), 0, 0
    while hits.total() < KILLS:
        seed += 1
        # In this process, so that the children start with all that torch imports at its first step.
        training.train(runs.open_run(cfg, seed, tmp_path / "undisturbed"))
        budget = runs.read_timing(tmp_path / "undisturbed" / cfg.folder / f"seed{seed}")["budget"]
        seconds = sum(budget.values()) - budget["setup"]
        path = tmp_path / "killed" / cfg.folder / f"seed{seed}"
        while not (path / "summary.json").is_file():
            child = forked_train(cfg, seed, tmp_path / "killed")
            delay = draw.uniform(0, seconds / 5 if hits.total() < KILLS else 100 * seconds)
            hit = kill_at(child, path, draw.random() < 0.1, delay, draw.random() < 0.3)
            if hit:
                hits[hit] += 1
                resumes += (path / "latest.pt").is_file()
                assert runs.state(path) in ("dead", "empty", "done")
                assert torn_files(path) == []
        os.waitpid(
            forked_train(cfg, seed, tmp_path / "killed"), 0
        )  # a killed run may have been done already
        assert equal(record(path), record(tmp_path / "undisturbed" / cfg.folder / f"seed{seed}"))
        assert leftovers(path) == []
    with capsys.disabled():
        where = ", ".join(f"{count} {name}" for name, count in hits.most_common())
        print(
            f"\n{hits.total()} kills ({where}), {resumes} resumes, {seed} runs, all bit-equal;"
            " no torn file"
        )
