"""Bench of the training step on a GPU: precision, compilation, positions, arms, other code."""

import gc
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from itertools import product
from pathlib import Path
from statistics import median
from typing import Any

import torch

from oelm_lib.bench.steps import OTHERS, random_batch, workbook_step
from oelm_lib.config import load_config
from oelm_lib.errors import UserError
from oelm_lib.files import write_json
from oelm_lib.model.cost import step_bytes, step_flops
from oelm_lib.training import compiler

ARMS = {"baseline": "GPT-01", "OELM-Freeze": "GPT-02"}
CODES = {"workbook": workbook_step, **OTHERS}
MODES = {"eager": None, "compiled": "default", "CUDA graphs": "reduce-overhead"}
"""How the forward and backward pass run -> torch.compile's mode; None: not compiled."""
ROUNDS, STEPS = 5, 10
"""Timings of a case, and steps of each."""
SQUARE = 8192
"""Side of the matrices whose product states the card's peak."""


@dataclass(frozen=True)
class Case:
    """One way to take a training step of Medium-512."""

    code: str
    """Key of CODES."""
    mode: str
    """Key of MODES."""
    precision: str
    position: str
    arm: str
    """Key of ARMS."""


def all_cases() -> list[Case]:
    """Return the cases, the most telling first: what does not fit in the time is left out."""
    ours = [
        Case("workbook", mode, precision, position, arm)
        for position, precision, mode, arm in product(
            ("learned", "t5", "rope"), ("bf16", "fp16"), reversed(MODES), ARMS
        )
    ]
    others = [
        Case("naive", "eager", "bf16", "learned", "baseline"),
        Case("hf_gpt2", "eager", "bf16", "learned", "baseline"),
        Case("hf_gpt2", "compiled", "bf16", "learned", "baseline"),
    ]
    usual = [case for case in ours if (case.position, case.precision) == ("learned", "bf16")]
    return [*usual, *others, *(case for case in ours if case not in usual)]


def bench_gpu(
    out: Path,
    seconds: float,
    device: torch.device | str,
    cases: list[Case] | None = None,
    changes: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """Measure the cases one after another until the time is used.

    Args:
        out: The .json to write, rewritten after each case.
        seconds: Time for all cases; those that are not begun by then are named in `left_out`.
        cases: Default `all_cases()`.
        changes: Overrides of every experiment; the tests make it small.

    Returns:
        `peak_flops` (measured), `bandwidth` (bytes/s, measured), `rows` (one a case),
        `left_out` (cases without a measurement, each with its reason).
    """
    device = torch.device(device)
    end = time.monotonic() + seconds
    result: dict[str, Any] = {
        "peak_flops": product_rate(device),
        "bandwidth": copy_rate(device),
        "rows": [],
        "left_out": [],
    }
    for case in all_cases() if cases is None else cases:
        try:
            if time.monotonic() > end:
                raise UserError("out of time")
            row = measure(case, device, changes)
        except Exception as error:  # a case may fail in many ways, for instance without a compiler
            kind = "" if isinstance(error, UserError) else f"{type(error).__name__}: "
            reason = f"{kind}{error}".splitlines()[0][:200]
            result["left_out"].append(asdict(case) | {"reason": reason})
        else:
            share = row["flops"] / row["seconds"] / result["peak_flops"]
            floor = max(row["flops"] / result["peak_flops"], row["bytes"] / result["bandwidth"])
            result["rows"].append(row | {"share_of_peak": share, "floor_seconds": floor})
        write_json(out, result, checksum=True)
    return result


def measure(
    case: Case, device: torch.device, changes: dict[str, Any] | None = None
) -> dict[str, Any]:
    """Time one case.

    Returns:
        The case with `seconds` (median of a step), `seconds_low`, `seconds_high`, `tokens_per_s`,
        `setup_seconds` (until the fourth step: compilation), `memory_bytes` (most reserved on
        the GPU), `flops` (of the fast path) and `bytes` (least traffic) of a step.

    Raises:
        UserError: `transformers` is not installed.
    """
    overrides = {"model.position": case.position, "train.precision": case.precision}
    cfg = load_config(ARMS[case.arm], overrides | (changes or {}))
    cuda = device.type == "cuda"
    if cuda:
        gc.collect()
        torch.compiler.reset()  # drops the CUDA graphs of the case before, with their memory
        torch.cuda.empty_cache()
    start = time.perf_counter()
    step = CODES[case.code](cfg, random_batch(cfg, device), MODES[case.mode])
    for _ in range(compiler.WARM_UP_CALLS + 1):
        step()
    _wait(device)
    setup = time.perf_counter() - start
    if cuda:
        torch.cuda.empty_cache()  # what compiling took
        torch.cuda.reset_peak_memory_stats(device)
    timings = [_seconds(step, device) for _ in range(ROUNDS)]
    size, batch_size = cfg.model, cfg.train.batch_size
    held = step_bytes(size, batch_size)
    return asdict(case) | {
        "seconds": median(timings),
        "seconds_low": min(timings),
        "seconds_high": max(timings),
        "tokens_per_s": batch_size * size.max_seq_len / median(timings),
        "setup_seconds": setup,
        # The activations of a CUDA graph are reserved, but count as allocated only while recorded.
        "memory_bytes": torch.cuda.max_memory_reserved(device) if cuda else None,
        "flops": step_flops(size, batch_size)["fast"],
        # Weights, gradients and moments are read and written once each.
        "bytes": 2 * (held["weights"] + held["gradients"] + held["adam"]),
    }


def product_rate(device: torch.device) -> float:
    """Return FLOP/s of a square bf16 matrix product, the best of ROUNDS timings."""
    side = SQUARE if device.type == "cuda" else 512
    a = torch.randn(side, side, device=device, dtype=torch.bfloat16)
    best = min(_seconds(lambda: a @ a, device) for _ in range(ROUNDS + 1))
    return 2 * side**3 / best


def copy_rate(device: torch.device) -> float:
    """Return bytes/s of a copy on the device, read and write counted, the best of ROUNDS."""
    size = 2**30 if device.type == "cuda" else 2**22
    source = torch.zeros(size, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    best = min(_seconds(lambda: target.copy_(source), device) for _ in range(ROUNDS + 1))
    return 2 * size / best


def _seconds(step: Callable[[], Any], device: torch.device) -> float:
    """Return the mean seconds of STEPS steps, the work of the device included."""
    _wait(device)
    start = time.perf_counter()
    for _ in range(STEPS):
        step()
    _wait(device)
    return (time.perf_counter() - start) / STEPS


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
