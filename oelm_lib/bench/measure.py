"""Measure the training step: against other implementations, the arithmetic's limit, and by its parts."""

import os
from collections.abc import Callable
from itertools import accumulate
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from torch.profiler import profile

from oelm_lib.bench.contestants import (
    CPU,
    OTHERS,
    RATE,
    as_a_script,
    our_step,
    random_batch,
    random_ids,
    seconds_of,
    timed,
)
from oelm_lib.config import Experiment, load_config
from oelm_lib.data.batches import Batches, EvalWindows
from oelm_lib.files import write_json
from oelm_lib.model.cost import gemms, step_bytes, step_flops
from oelm_lib.model.dropout import QUERY_BLOCK
from oelm_lib.model.gpt import CHUNK, GPT
from oelm_lib.training.device import keep_freed_memory
from oelm_lib.training.evaluation import BATCH_TOKENS, token_losses
from oelm_lib.training.optim import make_optimizer, update
from oelm_lib.training.precision import Precision

SIZES = {
    "medium": ("GPT-01", "GPT-02", {}),
    "study": ("CPU-01", "CPU-02", {"train.batch_size": 16}),
}
"""Baseline, OELM-Freeze and changes to both: Medium-512, and the size that studies on a CPU have."""


def bench(
    size: str, dropout: float, rounds: int, out: Path, threads: int | None = None
) -> dict[str, Any]:
    """Measure one size at one dropout and write <out>.json.

    Baseline and OELM-Freeze, which are close, alternate `rounds` times; the baseline and other implementations a third
    as often, and the steps that show growth (without dropout alone) a twentieth.
    """
    keep_freed_memory()
    if threads:
        torch.set_num_threads(threads)
    *pair, changes = SIZES[size]
    base, frozen = (
        load_config(exp, changes | {"model.dropout": dropout, "train.precision": "fp32"})
        for exp in pair
    )
    result = {
        "size": size,
        "dropout": dropout,
        "threads": torch.get_num_threads(),
        "clock": "CPU" if torch.get_num_threads() == 1 else "wall",
        "torch": torch.__version__,
        "load_average": os.getloadavg()[1],
    }
    result |= compare(base, frozen, rounds) | {"growth": []}
    out.parent.mkdir(parents=True, exist_ok=True)
    write_json(out.with_suffix(".json"), result)
    if not dropout:
        result["growth"] = growth(base, max(rounds // 20, 1))
        write_json(out.with_suffix(".json"), result)
    return result


def compare(base: Experiment, frozen: Experiment, rounds: int) -> dict[str, Any]:
    """Seconds of all contestants and what follows from them; they are gone, with their memory, when it returns."""
    b, batch = base.train.batch_size, random_batch(base)
    ours = {"baseline": our_step(base, batch), "oelm_freeze": our_step(frozen, batch)}
    others = {kind: make(base, batch) for kind, make in OTHERS.items()}
    close = alternate({name: timed(step) for name, step in ours.items()}, rounds)
    limit = gemm_limit(base)
    scripts = {
        f"{kind}_script": as_a_script(kind, base, torch.get_num_threads()) for kind in OTHERS
    }
    here = {name: timed(step) for name, step in {"baseline": ours["baseline"], **others}.items()}
    apart = alternate(here | scripts, max(rounds // 3, 1))
    for step in scripts.values():
        step.end()
    piece = parts(base, random_ids(base), max(rounds // 3, 1))
    flops = step_flops(frozen.model, b)
    saved = speed_up(close["oelm_freeze"], close["baseline"])
    return {
        "seconds": {"close": close, "apart": apart},
        "gemm_limit_seconds": limit,
        "share_of_gemm_limit": limit / median(close["baseline"]),
        "speed_up_over": {
            name: speed_up(apart[name], apart["baseline"]) for name in apart if name != "baseline"
        },
        "freezing_saves": {
            "measured": 1 - saved["ratio"],
            "standard_error": saved["standard_error"],
            "of_flops": flops["saved_by_freezing"] / (flops["plain"] + flops["saved_by_freezing"]),
        },
        "parts_seconds": piece,
        "evaluation_over_training": median(close["baseline"]) / piece["evaluation"],
        "peak_bytes": {
            name: step.held() + peak_bytes(step) for name, step in (ours | others).items()
        },
        "predicted_bytes": step_bytes(base.model, b, CHUNK, QUERY_BLOCK),
        "flops": flops,
    }


def alternate(steps: dict[str, Callable[[], float]], rounds: int) -> dict[str, list[float]]:
    """Seconds of each step, A/B/A/B after one round to warm up; every other round goes backwards."""
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    for number in range(rounds + 1):
        for name in list(steps)[:: -1 if number % 2 else 1]:
            taken = steps[name]()
            if number:
                seconds[name].append(taken)
    return seconds


def speed_up(other: list[float], mine: list[float]) -> dict[str, float]:
    """Median of other / mine over rounds, and its standard error by the bootstrap (a stalled round moves neither)."""
    ratios = np.array(other) / np.array(mine)
    drawn = np.random.default_rng(0).choice(ratios, (1000, len(ratios)))
    return {
        "ratio": float(np.median(ratios)),
        "standard_error": float(np.median(drawn, axis=1).std()),
    }


def peak_bytes(step: Callable[[], Any]) -> int:
    """Most bytes of tensors that a step allocates beyond those that live before it."""
    with profile(profile_memory=True) as trace:
        step()
    events = [
        event for event in trace.profiler.kineto_results.events() if event.name() == "[memory]"
    ]
    return max(
        accumulate(event.nbytes() for event in sorted(events, key=lambda event: event.start_ns()))
    )


def gemm_limit(cfg: Experiment, repeats: int = 3) -> float:
    """Seconds of a step's matrix products, each at the best time of its shape alone; attention as the fast path."""
    flops, products = (
        step_flops(cfg.model, cfg.train.batch_size),
        gemms(cfg.model, cfg.train.batch_size),
    )
    attention = sum(p.flops for p in products if p.part == "attention")
    causal = 1 - (flops["plain"] - flops["fast"]) / attention
    total = 0.0
    for p in products:
        # The head goes by chunks: no other order holds less than all logits.
        rows = cfg.train.batch_size * cfg.model.max_seq_len
        m, k, parts = p.m, p.k, 1.0
        if p.part == "head":
            parts = max(rows / CHUNK, 1)
            m, k = (m, int(k / parts)) if p.kind == "weight" else (int(m / parts), k)
        left, right, out = (
            torch.randn(p.batch, m, k),
            torch.randn(p.batch, p.n, k).mT,
            torch.empty(p.batch, m, p.n),
        )
        multiply = torch.bmm if p.batch > 1 else lambda a, b, out: torch.mm(a[0], b[0], out=out[0])
        best = min(seconds_of(multiply, left, right, out=out) for _ in range(repeats))
        total += best * p.count * parts * (causal if p.part == "attention" else 1)
    return total


def parts(cfg: Experiment, tokens: np.ndarray, rounds: int) -> dict[str, float]:
    """Median seconds of a step's parts, and of evaluating as many tokens as a step trains on."""
    model, precision = GPT(cfg.model), Precision("fp32", CPU)
    optimizer = make_optimizer(model, cfg.optim)
    batches = Batches(tokens, cfg.model.max_seq_len, cfg.train.batch_size, 0, CPU)
    windows = EvalWindows(tokens, cfg.model.max_seq_len, CPU)
    held: dict[str, Any] = {}
    numbers = np.arange(max(BATCH_TOKENS // cfg.model.max_seq_len, 1))
    pieces = {
        "data": lambda: held.update(batch=batches(0)),
        "forward": lambda: held.update(loss=model(*held["batch"])[1]),
        "backward": lambda: held["loss"].backward(),
        "optimizer": lambda: update(optimizer, precision, [RATE]),
        "evaluation": lambda: token_losses(model, windows, numbers),
    }
    seconds: dict[str, list[float]] = {name: [] for name in pieces}
    for _ in range(rounds + 1):
        for name, piece in pieces.items():
            seconds[name].append(seconds_of(piece))
    medians = {name: median(values[1:]) for name, values in seconds.items()}
    return medians | {"evaluation": medians["evaluation"] * cfg.train.batch_size / len(numbers)}


def growth(cfg: Experiment, rounds: int) -> list[dict[str, Any]]:
    """A step at half, one and two times each size (of a vocabulary up to 65,536): measured, and what the sizes predict.

    Returns:
        One row a size and value: `what`, `value`, and `seconds`, `peak_bytes` (of tensors), `fast_flops`,
        `predicted_bytes`.
    """
    m, rows = cfg.model, []
    sizes: dict[str, tuple[int, Callable[[int], dict[str, Any]]]] = {
        "d_model": (
            m.d_model,
            lambda v: {"model.num_heads": v // m.d_head, "model.d_ff": v * m.d_ff // m.d_model},
        ),
        "num_layers": (m.num_layers, lambda v: {}),
        "max_seq_len": (m.max_seq_len, lambda v: {}),
        "vocab_size": (m.vocab_size, lambda v: {}),
        "batch_size": (cfg.train.batch_size, lambda v: {}),
    }
    for what, (base, more) in sizes.items():
        values = (base // 2, base, min(2 * base, 2**16) if what == "vocab_size" else 2 * base)
        section = "train" if what == "batch_size" else "model"
        configs = {
            str(v): load_config(cfg.id, cfg.overrides | {f"{section}.{what}": v} | more(v))
            for v in values
        }
        steps = {name: our_step(made, random_batch(made)) for name, made in configs.items()}
        seconds = alternate({name: timed(step) for name, step in steps.items()}, rounds)
        for name, made in configs.items():
            size, batch_size = made.model, made.train.batch_size
            row = {"what": what, "value": int(name), "seconds": median(seconds[name])}
            row |= {"peak_bytes": steps[name].held() + peak_bytes(steps[name])}
            row |= {"fast_flops": step_flops(size, batch_size)["fast"]}
            rows.append(
                row | {"predicted_bytes": step_bytes(size, batch_size, CHUNK, QUERY_BLOCK)["peak"]}
            )
    return rows
