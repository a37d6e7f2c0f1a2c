"""The model of cost: arithmetic, memory and time of a training step, from the sizes alone."""

from dataclasses import dataclass

from oelm_lib.config import Experiment, ModelConfig
from oelm_lib.hardware import GPU_FLOPS
from oelm_lib.model.additions import active, added_parameters

FLOAT = 4
"""Bytes of an fp32 number."""
CHUNK = 512
"""Positions whose logits are held at once."""
QUERY_BLOCK = 128
"""Queries of a block of attention: its probabilities fit a CPU's cache, later keys are skipped."""
FLOP_NAMES = {
    "forward": "forward pass",
    "backward": "backward pass",
    "plain": "step, plain attention",
    "saved_by_freezing": "saved by freezing",
    "fast": "step, attention to the past only",
}
"""What `cost_table` calls the keys of `step_flops`."""


@dataclass(frozen=True)
class Gemm:
    """`count` times `batch` products of an (m, k) with a (k, n) matrix.

    part: query, key, value, output, attention, feed_forward, head, or the name of an addition.
    kind: forward, input (gradient of what was read) or weight (gradient of the weight).
    """

    part: str
    kind: str
    count: int
    batch: int
    m: int
    k: int
    n: int

    @property
    def flops(self) -> int:
        """A multiplication and an addition each."""
        return 2 * self.count * self.batch * self.m * self.k * self.n


def gemms(cfg: ModelConfig, batch_size: int) -> list[Gemm]:
    """Return all matrix products of a step: explicit softmax attention, all logits at once."""
    rows, layers, d = batch_size * cfg.max_seq_len, cfg.num_layers, cfg.d_model
    heads, length, k = batch_size * cfg.num_heads, cfg.max_seq_len, cfg.d_head
    frozen_q, frozen_k = _never_trained(cfg)
    products = [
        *_passes("query", layers, layers - frozen_q, 1, rows, d, d),
        *_passes("key", layers, layers - frozen_k, 1, rows, d, d),
        *_passes("value", layers, layers, 1, rows, d, d),
        *_passes("output", layers, layers, 1, rows, d, d),
        *_passes("feed_forward", layers, layers, 1, rows, d, cfg.d_ff),
        *_passes("feed_forward", layers, layers, 1, rows, cfg.d_ff, d),
        *_passes("head", 1, 1, 1, rows, d, cfg.vocab_size),
        Gemm("attention", "forward", layers, heads, length, k, length),
        Gemm("attention", "forward", layers, heads, length, length, k),
        Gemm("attention", "input", 2 * layers, heads, length, k, length),
        Gemm("attention", "input", 2 * layers, heads, length, length, k),
    ]
    for addition in active(cfg):
        for product in addition.products(cfg, batch_size):
            products += _passes(addition.name, layers, layers, *product)
    return [product for product in products if product.count]


def _passes(part: str, layers: int, trained: int, batch: int, m: int, k: int, n: int) -> list[Gemm]:
    """Return the products of a layer's forward pass and of its two gradients."""
    return [
        Gemm(part, "forward", layers, batch, m, k, n),
        Gemm(part, "input", layers, batch, m, n, k),
        Gemm(part, "weight", trained, batch, k, m, n),
    ]


def _never_trained(cfg: ModelConfig) -> tuple[int, int]:
    """Return the number of layers whose W_q, and whose W_k, is frozen at every step."""
    layers = len(cfg.freezable_layers) if cfg.freezes_throughout else 0
    return cfg.freeze_q * layers, cfg.freeze_k * layers


def step_flops(cfg: ModelConfig, batch_size: int) -> dict[str, int | float]:
    """Return FLOPs of a step.

    Returns:
        forward; backward; plain: their sum, as torch's FlopCounterMode counts the plain path;
        saved_by_freezing; fast: without the attention to later positions, which fast kernels skip.
    """
    products = gemms(cfg, batch_size)
    total = sum(p.flops for p in products)
    forward = sum(p.flops for p in products if p.kind == "forward")
    trained = cfg.model_copy(update={"freeze_q": False, "freeze_k": False})
    attention = sum(p.flops for p in products if p.part == "attention")
    return {
        "forward": forward,
        "backward": total - forward,
        "plain": total,
        "saved_by_freezing": sum(p.flops for p in gemms(trained, batch_size)) - total,
        "fast": total - attention * (1 - 1 / cfg.max_seq_len) / 2,
    }


def parameter_counts(cfg: ModelConfig) -> dict[str, int]:
    """Return numbers of scalars: total, trainable (at some step), frozen."""
    d, positions = cfg.d_model, cfg.max_seq_len * (cfg.position == "learned")
    block = 2 * d * d + 2 * d * cfg.d_ff + cfg.d_ff + 5 * d
    qk, frozen = _qk_parameters(cfg)
    total = (cfg.vocab_size + positions + 2) * d + cfg.num_layers * block + qk
    return {"total": total, "trainable": total - frozen, "frozen": frozen}


def qk_share(cfg: ModelConfig) -> float:
    """Return the trained parameters of W_q, W_k and all additions over the 2 L D^2 of W_q and W_k.

    Trained means updated at some step.
    """
    qk, frozen = _qk_parameters(cfg)
    return (qk - frozen) / (2 * cfg.num_layers * cfg.d_model**2)


def _qk_parameters(cfg: ModelConfig) -> tuple[int, int]:
    """Return the scalars of W_q, W_k and all additions, and how many are never updated."""
    square, projections = cfg.d_model**2, 1 if cfg.qk_tied else 2
    total = cfg.num_layers * (projections * square + added_parameters(cfg))
    return total, sum(_never_trained(cfg)[:projections]) * square


def step_bytes(cfg: ModelConfig, batch_size: int) -> dict[str, int | float]:
    """Return bytes of tensors at the end of the forward pass, where a step holds most.

    In fp32 on a CPU; of additions, only parameters are counted.

    Returns:
        weights, gradients, adam, activations, logits (of a chunk); peak: their sum, but of the
        gradients only that of the head, the one that exists by then.
    """
    rows, d, numbers = batch_size * cfg.max_seq_len, cfg.d_model, parameter_counts(cfg)
    # Per token: what both norms, the projections, attention and the output projection read; the
    # feed-forward's hidden layer before and after GELU; two statistics of each norm.
    block = FLOAT * (8 * d + 2 * cfg.d_ff + 4)
    outside = FLOAT * 2 * d  # the last norm's input, and the gradient of what the head reads
    if cfg.dropout:
        # A mask byte an element, and each attention probability that can be other than 0 with its
        # mask.
        keys = _mean_keys(cfg.max_seq_len)
        block += 2 * d + cfg.d_ff + (FLOAT + 1) * cfg.num_heads * keys
        outside += d
    else:
        block += FLOAT * cfg.num_heads  # log of the softmax's denominator
    kinds = {
        "weights": FLOAT * numbers["total"],
        "gradients": FLOAT * numbers["trainable"],
        "adam": 2 * FLOAT * numbers["trainable"],
        "activations": rows * (cfg.num_layers * block + outside),
        "logits": FLOAT * min(CHUNK, rows) * cfg.vocab_size,
    }
    return kinds | {"peak": sum(kinds.values()) - kinds["gradients"] + FLOAT * cfg.vocab_size * d}


def _mean_keys(length: int) -> float:
    """Return the mean keys of a query; each block of queries sees the keys up to its end."""
    blocks, rest = divmod(length, QUERY_BLOCK)
    return (QUERY_BLOCK**2 * blocks * (blocks + 1) / 2 + rest * length) / length


def training_hours(experiment: Experiment, flops_per_second: float) -> float:
    """Return the hours of a run's steps at a rate of FLOP/s; attention as in fast kernels."""
    train = experiment.train
    flops = step_flops(experiment.model, train.batch_size)["fast"] * train.max_steps
    return flops / flops_per_second / 3600


def cost_table(experiment: Experiment, gpu: str, utilisation: float) -> list[tuple[str, str]]:
    """Return the cost of a run as (name, value) rows; time on `gpu` at a share of its peak."""
    flops = step_flops(experiment.model, experiment.train.batch_size)
    memory = step_bytes(experiment.model, experiment.train.batch_size)
    hours = training_hours(experiment, GPU_FLOPS[gpu] * utilisation)
    saved = flops["saved_by_freezing"] / (flops["plain"] + flops["saved_by_freezing"])
    return [
        *((f"{FLOP_NAMES[key]}: GFLOP", f"{flop / 1e9:,.2f}") for key, flop in flops.items()),
        ("freezing saves", f"{saved:.2%}"),
        *((f"{key} MiB (fp32, CPU)", f"{size / 2**20:,.1f}") for key, size in memory.items()),
        (f"hours on {gpu} at {utilisation:.0%} of its peak", f"{hours:.2f}"),
    ]
