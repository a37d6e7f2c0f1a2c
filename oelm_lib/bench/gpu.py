"""Bench of the training step on a GPU: precision, compilation, positions, arms, other code."""

import platform
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from itertools import product
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import nn

from oelm_lib.bench.steps import OTHERS, RATE, Batch, random_batch
from oelm_lib.config import Experiment, load_config
from oelm_lib.errors import UserError
from oelm_lib.files import write_json
from oelm_lib.model.cost import step_bytes, step_flops
from oelm_lib.model.gpt import GPT
from oelm_lib.training import compiler
from oelm_lib.training.optim import (
    backward,
    clip_gradients,
    gradient_norm,
    make_optimizer,
    update,
)
from oelm_lib.training.precision import Precision

ARMS = {"baseline": "GPT-01", "OELM-Freeze": "GPT-02"}
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
    """workbook, hf_gpt2 or naive."""
    mode: str
    precision: str
    position: str
    arm: str


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
    return [*ours[:6], *others, *ours[6:]]


def bench_gpu(
    out: Path,
    seconds: float,
    device: torch.device | str,
    cases: list[Case] | None = None,
    changes: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """Measure the cases one after another until the time is used, and write <out>.

    Args:
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
        except UserError as error:
            result["left_out"].append(asdict(case) | {"reason": str(error)})
        else:
            share = row["flops"] / row["seconds"] / result["peak_flops"]
            floor = max(row["flops"] / result["peak_flops"], row["bytes"] / result["bandwidth"])
            result["rows"].append(row | {"share_of_peak": share, "floor_seconds": floor})
        write_json(out, result, checksum=True)
    return result


def gpu_name() -> str | None:
    """Return the name of the first GPU that torch can use, or None."""
    return torch.cuda.get_device_name(0) if torch.cuda.is_available() else None


def versions() -> dict[str, Any]:
    """Return the versions that decide speed and numbers."""
    return {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "cuda": torch.version.cuda,
        "cudnn": torch.backends.cudnn.version(),
    }


def measure(
    case: Case, device: torch.device, changes: dict[str, Any] | None = None
) -> dict[str, Any]:
    """Time one case.

    Returns:
        The case with `seconds` (median of a step), `seconds_low`, `seconds_high`, `tokens_per_s`,
        `setup_seconds` (until the fourth step: compilation), `memory_bytes` (peak of the GPU),
        `flops` (of the fast path) and `bytes` (least traffic) of a step.

    Raises:
        UserError: `transformers` is not installed.
    """
    overrides = {"model.position": case.position, "train.precision": case.precision}
    cfg = load_config(ARMS[case.arm], overrides | (changes or {}))
    start = time.perf_counter()
    step = _step(case, cfg, random_batch(cfg, device), device)
    for _ in range(compiler.WARM_UP_CALLS + 1):
        step()
    _wait(device)
    setup = time.perf_counter() - start
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    timings = [_seconds(step, device) for _ in range(ROUNDS)]
    cuda = device.type == "cuda"
    size, batch_size = cfg.model, cfg.train.batch_size
    held = step_bytes(size, batch_size)
    return asdict(case) | {
        "seconds": median(timings),
        "seconds_low": min(timings),
        "seconds_high": max(timings),
        "tokens_per_s": batch_size * size.max_seq_len / median(timings),
        "setup_seconds": setup,
        "memory_bytes": torch.cuda.max_memory_allocated(device) if cuda else None,
        "flops": step_flops(size, batch_size)["fast"],
        # Weights, gradients and moments are read and written once each.
        "bytes": 2 * (held["weights"] + held["gradients"] + held["adam"]),
    }


def product_rate(device: torch.device, side: int | None = None) -> float:
    """Return FLOP/s of a square bf16 matrix product, the best of ROUNDS timings."""
    side = side or (SQUARE if device.type == "cuda" else 512)
    a = torch.randn(side, side, device=device, dtype=torch.bfloat16)
    best = min(_seconds(lambda: a @ a, device) for _ in range(ROUNDS + 1))
    return 2 * side**3 / best


def copy_rate(device: torch.device, size: int | None = None) -> float:
    """Return bytes/s of a copy on the device, read and write counted, the best of ROUNDS."""
    size = size or (2**30 if device.type == "cuda" else 2**22)
    source = torch.zeros(size, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    best = min(_seconds(lambda: target.copy_(source), device) for _ in range(ROUNDS + 1))
    return 2 * size / best


def _seconds(step: Callable[[], Any], device: torch.device) -> float:
    """Mean seconds of STEPS steps, the work of the device included."""
    _wait(device)
    start = time.perf_counter()
    for _ in range(STEPS):
        step()
    _wait(device)
    return (time.perf_counter() - start) / STEPS


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _step(case: Case, cfg: Experiment, batch: Batch, device: torch.device) -> Callable[[], None]:
    if case.code == "workbook":
        return _workbook_step(case, cfg, batch, device)
    return _other_step(case, cfg, batch, device)


def _workbook_step(
    case: Case, cfg: Experiment, batch: Batch, device: torch.device
) -> Callable[[], None]:
    """Make the step of the training loop."""
    model = GPT(cfg.model).to(device)
    optimizer, precision = make_optimizer(model, cfg.optim), Precision(case.precision, device)
    forward = _compiled(model, case.mode)

    def step() -> None:
        compiler.start_step(device)
        backward(forward, precision, batch)
        norm = gradient_norm(optimizer, precision)
        clip_gradients(optimizer, cfg.optim.grad_clip, norm)
        update(optimizer, precision, [RATE])

    return step


def _other_step(
    case: Case, cfg: Experiment, batch: Batch, device: torch.device
) -> Callable[[], None]:
    """Make the step of another implementation, under autocast."""
    other = OTHERS[case.code](cfg, batch)
    model, loss = other.model.to(device), other.loss
    forward = _compiled(loss, case.mode)
    optimizer = torch.optim.AdamW(model.parameters(), lr=RATE, fused=True)
    dtype = {"bf16": torch.bfloat16, "fp16": torch.float16}[case.precision]

    def step() -> None:
        with torch.autocast(device.type, dtype):
            value = forward()
        value.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()

    return step


def _compiled(function: Any, mode: str) -> Any:
    """Compile a model or a function as MODES says."""
    if MODES[mode] is None:
        return function
    return torch.compile(function, dynamic=False, mode=MODES[mode])
