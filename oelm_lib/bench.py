"""Measure the training step: against other implementations, the arithmetic's limit, and by its parts."""

import math
import multiprocessing
import os
import time
from collections.abc import Callable
from itertools import accumulate
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812
from torch.profiler import profile

from oelm_lib.analysis.cost import gemms, step_bytes, step_flops
from oelm_lib.config import Experiment, load_config
from oelm_lib.data.batches import Batches, EvalWindows
from oelm_lib.errors import UserError
from oelm_lib.files import write_json
from oelm_lib.model.attention import CausalSelfAttention
from oelm_lib.model.dropout import QUERY_BLOCK
from oelm_lib.model.gpt import CHUNK, GPT, Block
from oelm_lib.training.evaluation import BATCH_TOKENS, token_losses
from oelm_lib.training.optim import gradients, make_optimizer, update
from oelm_lib.training.precision import keep_freed_memory, make_precision

SIZES = {
    "medium": {},
    "study": {
        "model.vocab_size": 2048,
        "model.d_model": 128,
        "model.num_layers": 4,
        "model.num_heads": 4,
        "model.d_ff": 512,
        "model.max_seq_len": 128,
        "train.batch_size": 16,
    },
}
"""Changes to GPT-01 and GPT-02: none is Medium-512; the other is the size that studies on a CPU have."""
CPU = torch.device("cpu")
RATE = 1e-4


class NaiveAttention(CausalSelfAttention):
    """The log's design: all scores, a fresh mask, softmax, dropout."""

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (self._heads(proj(x)) for proj in (self.q_proj, self.k_proj, self.v_proj))
        scores = q @ k.transpose(-2, -1) / math.sqrt(q.shape[-1])
        mask = torch.triu(torch.ones(x.shape[1], x.shape[1]), 1).bool()
        weights = F.dropout(scores.masked_fill(mask, -math.inf).softmax(-1), self.dropout, self.training)
        return F.dropout(self.o_proj((weights @ v).transpose(1, 2).flatten(2)), self.dropout, self.training)


class NaiveBlock(Block):
    """The same block with torch's dropout."""

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attention(self.ln1(x))
        hidden = F.dropout(F.gelu(self.fc_in(self.ln2(x))), self.dropout, self.training)
        return x + F.dropout(self.fc_out(hidden), self.dropout, self.training)


def our_step(cfg: Experiment, batch: tuple[Tensor, Tensor]) -> Callable[[], None]:
    """One optimizer step as the training loop takes it."""
    model = GPT(cfg.model)
    optimizer, precision = make_optimizer(model, cfg.optim), make_precision("fp32", CPU)

    def step() -> None:
        gradients(model, optimizer, precision, batch, cfg.optim.grad_clip)
        update(optimizer, precision, [RATE])

    step.held = lambda: _held(model, optimizer)
    return step


def plain_step(model: nn.Module, loss: Callable[[], Tensor]) -> Callable[[], None]:
    """One step as most scripts take it."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=RATE)

    def step() -> None:
        loss().backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()

    step.held = lambda: _held(model, optimizer)
    return step


def _held(model: nn.Module, optimizer: torch.optim.Optimizer) -> int:
    """Bytes of weights and optimizer state, which live between steps."""
    moments = [value for state in optimizer.state.values() for value in state.values()]
    return sum(tensor.nbytes for tensor in [*model.parameters(), *moments])


def naive_step(cfg: Experiment, batch: tuple[Tensor, Tensor]) -> Callable[[], None]:
    """A step with the log's attention and all logits at once."""
    model = GPT(cfg.model)
    for block in model.blocks:
        block.__class__, block.attention.__class__ = NaiveBlock, NaiveAttention
    return plain_step(model, lambda: F.cross_entropy(model(batch[0])[0].flatten(0, 1), batch[1].flatten()))


def hf_step(cfg: Experiment, batch: tuple[Tensor, Tensor]) -> Callable[[], None]:
    """A step of Hugging Face's GPT-2 of the same sizes."""
    try:
        from transformers import GPT2Config, GPT2LMHeadModel, logging
    except ImportError:
        raise UserError("transformers is not installed; run: pip install -e '.[bench]'") from None
    logging.set_verbosity_error()  # it warns of its defaults' token ids in a smaller vocabulary
    m = cfg.model
    sizes = {"vocab_size": m.vocab_size, "n_positions": m.max_seq_len, "n_embd": m.d_model, "n_inner": m.d_ff}
    drops = dict.fromkeys(("resid_pdrop", "embd_pdrop", "attn_pdrop"), m.dropout)
    model = GPT2LMHeadModel(GPT2Config(n_layer=m.num_layers, n_head=m.num_heads, use_cache=False, **sizes, **drops))
    return plain_step(model.train(), lambda: model(input_ids=batch[0], labels=batch[0]).loss)


OTHERS = {"naive": naive_step, "hf_gpt2": hf_step}


def timed(step: Callable[[], Any]) -> Callable[[], float]:
    """The step as a function that returns the seconds it took."""
    return lambda: _seconds(step)


def as_a_script(kind: str, cfg: Experiment, threads: int) -> Callable[[], float]:
    """A step, timed, of a process of its own, whose allocator is as glibc sets it: what a user's script gets.

    Args:
        kind: naive or hf_gpt2.
    """
    context = multiprocessing.get_context("spawn")
    mine, its = context.Pipe()
    process = context.Process(target=_serve, args=(kind, cfg.id, cfg.overrides, threads, its), daemon=True)
    process.start()

    def step() -> float:
        mine.send(True)
        return mine.recv()

    step.end = process.terminate
    return step


def _serve(kind: str, exp: str, overrides: dict[str, Any], threads: int, connection: Any) -> None:
    """Make a step and time it as often as the other end asks."""
    torch.set_num_threads(threads)
    cfg = load_config(exp, overrides)
    step = OTHERS[kind](cfg, _batch(cfg))
    while connection.recv():
        connection.send(_seconds(step))


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
    return {"ratio": float(np.median(ratios)), "standard_error": float(np.median(drawn, axis=1).std())}


def peak_bytes(step: Callable[[], Any]) -> int:
    """Most bytes of tensors that a step allocates beyond those that live before it."""
    with profile(profile_memory=True) as trace:
        step()
    events = [event for event in trace.profiler.kineto_results.events() if event.name() == "[memory]"]
    return max(accumulate(event.nbytes() for event in sorted(events, key=lambda event: event.start_ns())))


def gemm_limit(cfg: Experiment, repeats: int = 3) -> float:
    """Seconds of a step's matrix products, each at the best time of its shape alone; attention as the fast path."""
    flops, products = step_flops(cfg.model, cfg.train.batch_size), gemms(cfg.model, cfg.train.batch_size)
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
        left, right, out = torch.randn(p.batch, m, k), torch.randn(p.batch, p.n, k).mT, torch.empty(p.batch, m, p.n)
        multiply = torch.bmm if p.batch > 1 else lambda a, b, out: torch.mm(a[0], b[0], out=out[0])
        best = min(_seconds(multiply, left, right, out=out) for _ in range(repeats))
        total += best * p.count * parts * (causal if p.part == "attention" else 1)
    return total


def _seconds(function: Callable, *args: Any, **kwargs: Any) -> float:
    """CPU seconds where torch has one thread, so that others on the machine do not count; else wall seconds."""
    clock = time.process_time if torch.get_num_threads() == 1 else time.perf_counter
    start = clock()
    function(*args, **kwargs)
    return clock() - start


def parts(cfg: Experiment, tokens: np.ndarray, rounds: int) -> dict[str, float]:
    """Median seconds of a step's parts, and of evaluating as many tokens as a step trains on."""
    model, precision = GPT(cfg.model), make_precision("fp32", CPU)
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
            seconds[name].append(_seconds(piece))
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
        "d_model": (m.d_model, lambda v: {"model.num_heads": v // m.d_head, "model.d_ff": v * m.d_ff // m.d_model}),
        "num_layers": (m.num_layers, lambda v: {}),
        "max_seq_len": (m.max_seq_len, lambda v: {}),
        "vocab_size": (m.vocab_size, lambda v: {}),
        "batch_size": (cfg.train.batch_size, lambda v: {}),
    }
    for what, (base, more) in sizes.items():
        values = (base // 2, base, min(2 * base, 2**16) if what == "vocab_size" else 2 * base)
        section = "train" if what == "batch_size" else "model"
        configs = {str(v): load_config(cfg.id, cfg.overrides | {f"{section}.{what}": v} | more(v)) for v in values}
        steps = {name: our_step(made, _batch(made)) for name, made in configs.items()}
        seconds = alternate({name: timed(step) for name, step in steps.items()}, rounds)
        for name, made in configs.items():
            size, batch_size = made.model, made.train.batch_size
            row = {"what": what, "value": int(name), "seconds": median(seconds[name])}
            row |= {"peak_bytes": steps[name].held() + peak_bytes(steps[name])}
            row |= {"fast_flops": step_flops(size, batch_size)["fast"]}
            rows.append(row | {"predicted_bytes": step_bytes(size, batch_size, CHUNK, QUERY_BLOCK)["peak"]})
    return rows


def _ids(cfg: Experiment) -> np.ndarray:
    tokens = max(BATCH_TOKENS, cfg.train.batch_size * cfg.model.max_seq_len)
    return np.random.default_rng(0).integers(cfg.model.vocab_size, size=2 * tokens + 1).astype(np.uint16)


def _batch(cfg: Experiment) -> tuple[Tensor, Tensor]:
    return Batches(_ids(cfg), cfg.model.max_seq_len, cfg.train.batch_size, 0, CPU)(0)


def bench(size: str, dropout: float, rounds: int, out: Path, threads: int | None = None) -> dict[str, Any]:
    """Measure one size at one dropout and write <out>.json.

    Baseline and OELM-Freeze, which are close, alternate `rounds` times; the baseline and other implementations a third
    as often, and the steps that show growth (without dropout alone) a twentieth.
    """
    keep_freed_memory()
    if threads:
        torch.set_num_threads(threads)
    changes = SIZES[size] | {"model.dropout": dropout, "train.precision": "fp32"}
    base, frozen = (load_config(exp, changes) for exp in ("GPT-01", "GPT-02"))
    b, batch = base.train.batch_size, _batch(base)
    ours = {"baseline": our_step(base, batch), "oelm_freeze": our_step(frozen, batch)}
    others = {kind: make(base, batch) for kind, make in OTHERS.items()}
    close = alternate({name: timed(step) for name, step in ours.items()}, rounds)
    limit = gemm_limit(base)
    scripts = {f"{kind}_script": as_a_script(kind, base, torch.get_num_threads()) for kind in OTHERS}
    against = {name: timed(step) for name, step in {"baseline": ours["baseline"], **others}.items()} | scripts
    apart = alternate(against, max(rounds // 3, 1))
    for step in scripts.values():
        step.end()
    piece = parts(base, _ids(base), max(rounds // 3, 1))
    flops = step_flops(frozen.model, b)
    saved = speed_up(close["oelm_freeze"], close["baseline"])
    result = {
        "size": size,
        "dropout": dropout,
        "threads": torch.get_num_threads(),
        "clock": "CPU" if torch.get_num_threads() == 1 else "wall",
        "torch": torch.__version__,
        "load_average": os.getloadavg()[1],
        "seconds": {"close": close, "apart": apart},
        "gemm_limit_seconds": limit,
        "share_of_gemm_limit": limit / median(close["baseline"]),
        "speed_up_over": {name: speed_up(apart[name], apart["baseline"]) for name in apart if name != "baseline"},
        "freezing_saves": {
            "measured": 1 - saved["ratio"],
            "standard_error": saved["standard_error"],
            "of_flops": flops["saved_by_freezing"] / (flops["plain"] + flops["saved_by_freezing"]),
        },
        "parts_seconds": piece,
        "evaluation_over_training": median(close["baseline"]) / piece["evaluation"],
        "peak_bytes": {name: step.held() + peak_bytes(step) for name, step in (ours | others).items()},
        "predicted_bytes": step_bytes(base.model, b, CHUNK, QUERY_BLOCK),
        "flops": flops,
    }
    result["growth"] = []
    out.parent.mkdir(parents=True, exist_ok=True)
    write_json(out.with_suffix(".json"), result)
    if not dropout:
        ours.clear()
        others.clear()
        result["growth"] = growth(base, max(rounds // 20, 1))
        write_json(out.with_suffix(".json"), result)
    return result
