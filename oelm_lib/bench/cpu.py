"""Bench of the training step on a CPU: other implementations, the arithmetic limit, its parts."""

import os
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch

from oelm_lib.bench.steps import (
    CPU,
    OTHERS,
    RATE,
    ScriptStep,
    Step,
    random_batch,
    random_ids,
    workbook_step,
)
from oelm_lib.bench.timing import alternate, peak_bytes, prepare, ratio, seconds_of, timed
from oelm_lib.config import Experiment, load_config
from oelm_lib.data.batches import Batches, EvalWindows
from oelm_lib.files import write_json
from oelm_lib.model.cost import CHUNK, Gemm, gemms, step_bytes, step_flops
from oelm_lib.model.gpt import GPT
from oelm_lib.training.evaluation import BATCH_TOKENS, token_losses
from oelm_lib.training.optim import make_optimizer, update
from oelm_lib.training.precision import Precision

SIZES = {
    "medium": ("GPT-01", "GPT-02", {}),
    "study": ("CPU-01", "CPU-02", {"train.batch_size": 16}),
}
"""Size -> baseline, OELM-Freeze, changes to both: Medium-512, and the size of the CPU studies."""
LARGEST_VOCABULARY = 2**16
"""Token ids are 16 bits wide."""


def bench(
    size: str,
    dropout: float,
    rounds: int,
    out: Path,
    threads: int | None = None,
) -> dict[str, Any]:
    """Measure one size at one dropout.

    Args:
        size: Key of SIZES.
        rounds: Timings of every step, at least FEWEST_ROUNDS.
        out: The .json to write.
        threads: torch threads; default torch's choice.

    Raises:
        UserError: Too few rounds, or `transformers` is not installed.
    """
    prepare(rounds, threads)
    baseline_id, frozen_id, changes = SIZES[size]
    changes = changes | {"model.dropout": dropout, "train.precision": "fp32"}
    baseline, frozen = load_config(baseline_id, changes), load_config(frozen_id, changes)
    result = {
        "size": size,
        "dropout": dropout,
        "threads": torch.get_num_threads(),
        "clock": "CPU" if torch.get_num_threads() == 1 else "wall",
        "torch": torch.__version__,
        "load_average": os.getloadavg()[1],
        **compare(baseline, frozen, rounds),
        "growth": growth(baseline, rounds),
    }
    out.parent.mkdir(parents=True, exist_ok=True)
    write_json(out, result, checksum=True)
    return result


def time_beside_scripts(
    steps: dict[str, Step], cfg: Experiment, rounds: int
) -> dict[str, list[float]]:
    """Time steps of this process in turns with those of OTHERS, each in a process of its own."""
    scripts = {f"{kind}_script": ScriptStep(kind, cfg, torch.get_num_threads()) for kind in OTHERS}
    try:
        return alternate({name: timed(step) for name, step in steps.items()} | scripts, rounds)
    finally:
        for script in scripts.values():
            script.close()


def compare(baseline: Experiment, frozen: Experiment, rounds: int) -> dict[str, Any]:
    """Time all implementations of one size; returns their seconds and the ratios made of them."""
    batch = random_batch(baseline)
    steps = {
        "baseline": workbook_step(baseline, batch),
        "oelm_freeze": workbook_step(frozen, batch),
        **{kind: make(baseline, batch) for kind, make in OTHERS.items()},
    }
    seconds = time_beside_scripts(steps, baseline, rounds)
    parts = parts_seconds(baseline, random_ids(baseline), rounds)
    limit = gemm_limit(baseline)
    flops = step_flops(frozen.model, baseline.train.batch_size)
    step_seconds = median(seconds["baseline"])
    unfrozen = flops["plain"] + flops["saved_by_freezing"]
    return {
        "seconds": seconds,
        "gemm_limit_seconds": limit,
        "share_of_gemm_limit": limit / step_seconds,
        "speed_up_over": {
            name: ratio(taken, seconds["baseline"])
            for name, taken in seconds.items()
            if name not in ("baseline", "oelm_freeze")
        },
        "frozen_over_baseline": ratio(seconds["oelm_freeze"], seconds["baseline"]),
        "flops_saved_by_freezing": flops["saved_by_freezing"] / unfrozen,
        "parts_seconds": parts,
        "evaluation_over_training": step_seconds / parts["evaluation"],
        "peak_bytes": {name: step.held_bytes() + peak_bytes(step) for name, step in steps.items()},
        "predicted_bytes": step_bytes(baseline.model, baseline.train.batch_size),
    }


def gemm_limit(cfg: Experiment) -> float:
    """Time a step's matrix products alone, each at its best of three; return their seconds."""
    batch_size = cfg.train.batch_size
    flops, products = step_flops(cfg.model, batch_size), gemms(cfg.model, batch_size)
    attention = sum(product.flops for product in products if product.part == "attention")
    skipped = flops["plain"] - flops["fast"]  # attention to later positions
    causal_share = 1 - skipped / attention
    rows = batch_size * cfg.model.max_seq_len
    total = 0.0
    for product in products:
        # The head is computed in chunks: no other order holds less than all logits.
        chunks = max(rows / CHUNK, 1) if product.part == "head" else 1.0
        share = causal_share if product.part == "attention" else 1.0
        total += _best_seconds(product, chunks) * product.count * chunks * share
    return total


def _best_seconds(product: Gemm, chunks: float) -> float:
    """Return the best of three times of one product, for 1 / chunks of the positions."""
    m, k, n = product.m, product.k, product.n
    if product.kind == "weight":
        k = int(k / chunks)
    else:
        m = int(m / chunks)
    left = torch.randn(product.batch, m, k)
    right = torch.randn(product.batch, n, k).mT
    out = torch.empty(product.batch, m, n)
    if product.batch > 1:
        return min(seconds_of(torch.bmm, left, right, out=out) for _ in range(3))
    return min(seconds_of(torch.mm, left[0], right[0], out=out[0]) for _ in range(3))


def parts_seconds(cfg: Experiment, ids: np.ndarray, rounds: int) -> dict[str, float]:
    """Time a step's parts, and an evaluation of as many tokens; return median seconds."""
    model, precision = GPT(cfg.model), Precision("fp32", CPU)
    optimizer = make_optimizer(model, cfg.optim)
    batches = Batches(ids, cfg.model.max_seq_len, cfg.train.batch_size, 0, CPU)
    windows = EvalWindows(ids, cfg.model.max_seq_len, CPU)
    numbers = np.arange(max(BATCH_TOKENS // cfg.model.max_seq_len, 1))
    held: dict[str, Any] = {}
    parts = {
        "data": lambda: held.update(batch=batches(0)),
        "forward": lambda: held.update(loss=model(*held["batch"])[1]),
        "backward": lambda: held["loss"].backward(),
        "optimizer": lambda: update(optimizer, precision, [RATE]),
        "evaluation": lambda: token_losses(model, windows, numbers),
    }
    seconds = alternate({name: timed(part) for name, part in parts.items()}, rounds, reverse=False)
    medians = {name: median(values) for name, values in seconds.items()}
    medians["evaluation"] *= cfg.train.batch_size / len(numbers)
    return medians


def growth(cfg: Experiment, rounds: int) -> list[dict[str, Any]]:
    """Time a step at half, one and two times each size (of a vocabulary up to 65,536).

    Returns:
        One row per size and value: `what`, `value`, `seconds` (of every round), `peak_bytes` (of
        tensors), `fast_flops`, `predicted_bytes`.
    """
    rows = []
    for what, variants in _sizes(cfg).items():
        steps = {str(value): workbook_step(c, random_batch(c)) for value, c in variants.items()}
        seconds = alternate({name: timed(step) for name, step in steps.items()}, rounds)
        for value, variant in variants.items():
            step, size, batch_size = steps[str(value)], variant.model, variant.train.batch_size
            rows.append(
                {
                    "what": what,
                    "value": value,
                    "seconds": seconds[str(value)],
                    "peak_bytes": step.held_bytes() + peak_bytes(step),
                    "fast_flops": step_flops(size, batch_size)["fast"],
                    "predicted_bytes": step_bytes(size, batch_size)["peak"],
                }
            )
    return rows


def _sizes(cfg: Experiment) -> dict[str, dict[int, Experiment]]:
    """Return size -> value -> the experiment with that value; heads and d_ff follow d_model."""
    model = cfg.model
    values = {
        "model.d_model": model.d_model,
        "model.num_layers": model.num_layers,
        "model.max_seq_len": model.max_seq_len,
        "model.vocab_size": model.vocab_size,
        "train.batch_size": cfg.train.batch_size,
    }
    sizes: dict[str, dict[int, Experiment]] = {}
    for key, middle in values.items():
        double = 2 * middle
        if key == "model.vocab_size":
            double = min(double, LARGEST_VOCABULARY)
        variants = {}
        for value in (middle // 2, middle, double):
            changes = {key: value}
            if key == "model.d_model":
                changes["model.num_heads"] = value // model.d_head
                changes["model.d_ff"] = value * model.d_ff // model.d_model
            variants[value] = load_config(cfg.id, cfg.overrides | changes)
        sizes[key.split(".")[1]] = variants
    return sizes
