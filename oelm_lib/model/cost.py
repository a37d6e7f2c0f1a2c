"""The model of cost: arithmetic, memory and time of a training step, from the sizes alone."""

from dataclasses import dataclass

from oelm_lib.config import Experiment, ModelConfig

GPU_FLOPS = {"A5000": 111e12, "A100": 312e12, "H100": 989e12}
"""Dense fp16 peak from the vendor's data sheets, FLOP/s."""
FLOAT = 4
"""Bytes of an fp32 number."""


@dataclass(frozen=True)
class Gemm:
    """`count` times `batch` products of an (m, k) with a (k, n) matrix; `part` says for what, `kind` in which pass."""

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
    """All matrix products of a step on the plain path: explicit softmax attention, all logits at once.

    W_q and W_k are taken as frozen where they are so at any step.

    kind: forward, input (gradient of what was read) or weight (gradient of the weight).
    """
    rows, layers, d = batch_size * cfg.max_seq_len, cfg.num_layers, cfg.d_model
    frozen, deltas = frozen_layers(cfg), 2 * layers * (cfg.delta_rank > 0)
    products = []
    for part, count, trained, inner, outer in (
        ("query", layers, layers - cfg.freeze_q * frozen, d, d),
        ("key", layers, layers - (cfg.freeze_q if cfg.qk_tied else cfg.freeze_k) * frozen, d, d),
        ("delta", deltas, deltas, d, cfg.num_heads * cfg.delta_rank),
        ("value", layers, layers, d, d),
        ("output", layers, layers, d, d),
        ("feed_forward", layers, layers, d, cfg.d_ff),
        ("feed_forward", layers, layers, cfg.d_ff, d),
        ("head", 1, 1, d, cfg.vocab_size),
    ):
        products += [
            Gemm(part, "forward", count, 1, rows, inner, outer),
            Gemm(part, "input", count, 1, rows, outer, inner),
            Gemm(part, "weight", trained, 1, outer, rows, inner),
        ]
    heads, length, k = batch_size * cfg.num_heads, cfg.max_seq_len, cfg.d_head
    for part, count, inner in (
        ("delta", deltas, cfg.delta_rank),
        ("core", layers * cfg.qk_core, k),
    ):
        products += [
            Gemm(part, "forward", count, heads, length, inner, k),
            Gemm(part, "input", count, heads, length, k, inner),
            Gemm(part, "weight", count, heads, inner, length, k),
        ]
    for kind, count in (("forward", layers), ("input", 2 * layers)):
        products += [
            Gemm("attention", kind, count, heads, length, k, length),
            Gemm("attention", kind, count, heads, length, length, k),
        ]
    return [product for product in products if product.count]


def frozen_layers(cfg: ModelConfig) -> int:
    """Number of layers that freeze_q and freeze_k apply to."""
    return cfg.num_layers if cfg.frozen_layers == "all" else len(set(cfg.frozen_layers))


def step_flops(cfg: ModelConfig, batch_size: int) -> dict[str, int | float]:
    """FLOPs of a step.

    Returns:
        forward, backward, plain (their sum, as torch's FlopCounterMode counts the plain path), saved_by_freezing, and
        fast: without the attention to later positions, which the fast kernels never compute.
    """
    products = gemms(cfg, batch_size)
    total = sum(p.flops for p in products)
    forward = sum(p.flops for p in products if p.kind == "forward")
    trained = cfg.model_copy(update={"freeze_q": False, "freeze_k": False})
    later = sum(p.flops for p in products if p.part == "attention") * (1 - 1 / cfg.max_seq_len) / 2
    return {
        "forward": forward,
        "backward": total - forward,
        "plain": total,
        "saved_by_freezing": sum(p.flops for p in gemms(trained, batch_size)) - total,
        "fast": total - later,
    }


MEDIUM = {
    "vocab_size": 50257,
    "d_model": 512,
    "num_layers": 6,
    "num_heads": 8,
    "d_ff": 2048,
    "max_seq_len": 512,
}


def parameter_numbers(cfg: ModelConfig) -> dict[str, int]:
    """Scalars: total, trainable (at some step), frozen."""
    d, positions = cfg.d_model, cfg.max_seq_len * (cfg.position == "learned")
    block = 2 * d * d + 2 * d * cfg.d_ff + cfg.d_ff + 5 * d
    path, frozen = _qk_numbers(cfg)
    total = (cfg.vocab_size + positions + 2) * d + cfg.num_layers * block + path
    return {"total": total, "trainable": total - frozen, "frozen": frozen}


def qk_share(cfg: ModelConfig) -> float:
    """Share of the 2 L D^2 numbers of a trained W_q and W_k that are updated at any step, with all that is added to
    the path of queries and keys."""
    path, frozen = _qk_numbers(cfg)
    return (path - frozen) / (2 * cfg.num_layers * cfg.d_model**2)


def _qk_numbers(cfg: ModelConfig) -> tuple[int, int]:
    """Scalars on the path of queries and keys, and those never updated; counts are those of model/attention."""
    d, h, k, sides = cfg.d_model, cfg.num_heads, cfg.d_head, 1 if cfg.qk_tied else 2
    layer = (
        sides * d * (d + cfg.qk_bias) + 2 * cfg.delta_rank * (d + k) * h + h * k * k * cfg.qk_core
    )
    layer += (
        3 * d * cfg.key_conv
        + 2 * d * cfg.qk_gain
        + h * cfg.head_temperature
        + 32 * h * (cfg.position == "t5")
    )
    frozen = (
        0
        if cfg.ever_trains_qk
        else sum((cfg.freeze_q, cfg.freeze_k)[:sides]) * frozen_layers(cfg) * d * d
    )
    return cfg.num_layers * layer, frozen


def medium(cfg: ModelConfig) -> ModelConfig:
    """The same arm at the log's size; where it names layers, the first six with the same share of frozen ones."""
    layers = cfg.frozen_layers
    if layers != "all":
        layers = tuple(
            range(
                round(MEDIUM["num_layers"] * (1 - len(layers) / cfg.num_layers)),
                MEDIUM["num_layers"],
            )
        )
    return cfg.model_copy(update=MEDIUM | {"frozen_layers": layers})


def step_bytes(
    cfg: ModelConfig, batch_size: int, chunk: int, query_block: int
) -> dict[str, int | float]:
    """Bytes of tensors at the end of the forward pass, where a step in fp32 on a CPU holds most.

    Args:
        chunk: Positions whose logits are held at once.
        query_block: Queries whose attention probabilities are made at once (where dropout keeps them).

    Returns:
        weights, gradients, adam, activations, logits (a chunk), and peak: the head's gradient exists by then.
    """
    rows, d, numbers = batch_size * cfg.max_seq_len, cfg.d_model, parameter_numbers(cfg)
    # Per token: what both norms, the projections, attention and the output projection read; the feed-forward's hidden
    # layer before and after GELU; two statistics of each norm.
    block = FLOAT * (8 * d + 2 * cfg.d_ff + 4)
    outside = FLOAT * 2 * d  # the last norm's input, and the gradient of what the head reads
    if cfg.dropout:
        # A mask byte an element, and each attention probability that can be other than 0 with its mask.
        block += (
            2 * d
            + cfg.d_ff
            + (FLOAT + 1) * cfg.num_heads * _mean_keys(cfg.max_seq_len, query_block)
        )
        outside += d
    else:
        block += FLOAT * cfg.num_heads  # log of the softmax's denominator
    kinds = {
        "weights": FLOAT * numbers["total"],
        "gradients": FLOAT * numbers["trainable"],
        "adam": 2 * FLOAT * numbers["trainable"],
        "activations": rows * (cfg.num_layers * block + outside),
        "logits": FLOAT * min(chunk, rows) * cfg.vocab_size,
    }
    return kinds | {"peak": sum(kinds.values()) - kinds["gradients"] + FLOAT * cfg.vocab_size * d}


def _mean_keys(length: int, query_block: int) -> float:
    """Keys per query where each block of queries sees those up to its end."""
    ends = [min(start + query_block, length) for start in range(0, length, query_block)]
    return sum((end - start) * end for start, end in zip([0, *ends], ends, strict=False)) / length


def training_hours(cfg: Experiment, flops_per_second: float) -> float:
    """Hours that the steps of a run take at a rate of FLOP/s on the plain path."""
    return (
        step_flops(cfg.model, cfg.train.batch_size)["plain"]
        * cfg.train.max_steps
        / flops_per_second
        / 3600
    )


def cost_table(
    cfg: Experiment, gpu: str, utilisation: float, chunk: int, query_block: int
) -> list[tuple[str, str]]:
    """What a run of this experiment costs, as (name, value) rows; time on `gpu` at a share of its peak."""
    flops = step_flops(cfg.model, cfg.train.batch_size)
    memory = step_bytes(cfg.model, cfg.train.batch_size, chunk, query_block)
    hours = training_hours(cfg, GPU_FLOPS[gpu] * utilisation)
    rows = [(f"{name} GFLOP per step", f"{value / 1e9:,.2f}") for name, value in flops.items()]
    rows += [
        (
            "freezing saves",
            f"{flops['saved_by_freezing'] / (flops['plain'] + flops['saved_by_freezing']):.2%}",
        )
    ]
    rows += [(f"{name} MiB (fp32, CPU)", f"{value / 2**20:,.1f}") for name, value in memory.items()]
    return [*rows, (f"hours on {gpu} at {utilisation:.0%} of its peak", f"{hours:.2f}")]
