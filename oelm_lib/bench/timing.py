"""Time and memory of callables: alternating rounds, ratios with their error, peak memory."""

import contextlib
import os
import time
from collections.abc import Callable, Iterator
from itertools import accumulate
from typing import Any

import numpy as np
import torch
from torch.profiler import profile

from oelm_lib.errors import UserError
from oelm_lib.training.device import keep_freed_memory

FEWEST_ROUNDS = 5
"""Rounds that a standard error needs: a bootstrap of two values says nothing."""


def prepare(rounds: int, threads: int | None) -> None:
    """Set this process up for timings: memory is kept between steps, and torch has its threads.

    Args:
        threads: None: torch's choice.

    Raises:
        UserError: Too few rounds for a standard error.
    """
    if rounds < FEWEST_ROUNDS:
        raise UserError(f"rounds = {rounds}; at least {FEWEST_ROUNDS} give a standard error")
    keep_freed_memory()
    if threads:
        torch.set_num_threads(threads)


def seconds_of(function: Callable, *args: Any, **kwargs: Any) -> float:
    """Time a call: CPU time with one thread, which is disturbed less, else wall time."""
    clock = time.process_time if torch.get_num_threads() == 1 else time.perf_counter
    start = clock()
    function(*args, **kwargs)
    return clock() - start


def timed(step: Callable[[], Any]) -> Callable[[], float]:
    """Wrap a step into a function that returns its seconds."""
    return lambda: seconds_of(step)


def alternate(
    steps: dict[str, Callable[[], float]], rounds: int, reverse: bool = True
) -> dict[str, list[float]]:
    """Time steps in turns, so that a change of the machine's load meets all of them.

    Args:
        steps: Name -> a function that takes the step and returns its seconds.
        rounds: Timings of each step, after one round to warm up.
        reverse: Take the steps of every other round in reversed order.

    Returns:
        Name -> seconds, one a round.
    """
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    for number in range(rounds + 1):
        order = list(steps)[::-1] if reverse and number % 2 else list(steps)
        for name in order:
            taken = steps[name]()
            if number > 0:
                seconds[name].append(taken)
    return seconds


def ratio(numerator: list[float], denominator: list[float]) -> dict[str, float]:
    """Return the median of the ratios of paired rounds, which a stalled round does not move.

    Returns:
        `ratio`, and `standard_error` by the bootstrap.
    """
    ratios = np.array(numerator) / np.array(denominator)
    samples = np.random.default_rng(0).choice(ratios, (1000, len(ratios)))
    error = float(np.median(samples, axis=1).std())
    return {"ratio": float(np.median(ratios)), "standard_error": error}


def peak_bytes(step: Callable[[], Any]) -> int:
    """Return the peak of the bytes of tensors that a step allocates on the CPU."""
    with _stderr_discarded(), profile(profile_memory=True) as trace:
        step()
    events = trace.profiler.kineto_results.events()
    memory = sorted(
        (event for event in events if event.name() == "[memory]"),
        key=lambda event: event.start_ns(),
    )
    return max(accumulate(event.nbytes() for event in memory))


@contextlib.contextmanager
def _stderr_discarded() -> Iterator[None]:
    """Discard what C++ code writes to stderr: torch's profiler announces its start there."""
    saved, null = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 2)
    try:
        yield
    finally:
        os.dup2(saved, 2)
        os.close(saved)
        os.close(null)
