"""Every addition as config changes, and attention in plain loops from their formulas."""

import math

import torch
from torch import Tensor

from oelm_lib.config import ModelConfig
from oelm_lib.model.additions import ADDITIONS
from tests.conftest import ARMS

FROZEN = ARMS["oelm_freeze"]
COUNT = 2
"""Value of the keys that hold a number."""


def changes(name: str) -> dict[str, object]:
    """Return the changes of a config that switch an addition on."""
    if name not in ModelConfig.model_fields:
        return {"position": name}
    return {name: True if ModelConfig.model_fields[name].annotation is bool else COUNT}


EACH = {addition.name: changes(addition.name) for addition in ADDITIONS}
ALL = {key: value for change in EACH.values() for key, value in change.items()}
CHANGES_THE_START = {
    "alibi",
    "forget_gate",
    "induction_heads",
    "key_shift",
    "qk_norm",
    "rope",
    "t5",
}
"""Additions whose scores at the start are not those of a model without them."""
EACH_AND_ALL = EACH | {"all": ALL, "tied": {"qk_tied": True}}


def stirred(cfg: ModelConfig):
    """Return a model whose every parameter differs from its start."""
    from oelm_lib.model.gpt import GPT

    model, generator = GPT(cfg, seed=2), torch.Generator().manual_seed(0)
    with torch.no_grad():
        for weight in model.parameters():
            weight += 0.2 * torch.randn(weight.shape, generator=generator)
    return model


def inputs(cfg: ModelConfig, rows: int = 2) -> Tensor:
    """Return random inputs of attention, (B, T, D)."""
    generator = torch.Generator().manual_seed(1)
    return torch.randn(rows, cfg.max_seq_len, cfg.d_model, generator=generator)


def reference(attention, cfg: ModelConfig, x: Tensor) -> Tensor:
    """Return what attention returns, a sequence, a head and a query at a time."""
    return torch.stack([_sequence(attention, cfg, row) for row in x]) @ attention.o_proj.weight.T


def _sequence(a, cfg: ModelConfig, x: Tensor) -> Tensor:
    """One sequence (T, D)."""
    queries = [_projected(a, cfg, x, "q", head) for head in range(cfg.num_heads)]
    keys = [_projected(a, cfg, x, "k", head) for head in range(cfg.num_heads)]
    if cfg.head_mixing:
        queries = [_mixed(queries, a.q_mixing[p]) for p in range(cfg.num_heads)]
        keys = [_mixed(keys, a.k_mixing[p]) for p in range(cfg.num_heads)]
    out = torch.zeros_like(x)
    for h in range(cfg.num_heads):
        rows = slice(h * cfg.d_head, (h + 1) * cfg.d_head)
        q, k = _transformed(a, cfg, queries[h], keys[h], h)
        values = x @ a.v_proj.weight[rows].T
        for i in range(len(x)):
            scores = torch.stack([_score(a, cfg, x, q, k, h, i, j) for j in range(i + 1)])
            out[i, rows] = scores.softmax(0) @ values[: i + 1]
            if n := cfg.head_gate:
                out[i, rows] *= 2 * torch.sigmoid(a.head_gate[h] @ x[i, :n])
    return out


def _projected(a, cfg, x, side, h):
    rows, rank = slice(h * cfg.d_head, (h + 1) * cfg.d_head), cfg.delta_rank
    weight = getattr(a, f"{side}_proj").weight[rows]
    if rank:
        low = getattr(a, f"{side}_delta_a")[h * rank : (h + 1) * rank]
        weight = weight + getattr(a, f"{side}_delta_b")[h] @ low
    if cfg.qk_input_gain:
        weight = weight * getattr(a, f"{side}_input_gain")
    return x @ weight.T + (getattr(a, f"{side}_bias")[rows] if cfg.qk_bias else 0)


def _mixed(heads, shares):
    return sum(share * head for share, head in zip(shares, heads, strict=True))


def _transformed(a, cfg, q, k, h):
    rows, half = slice(h * cfg.d_head, (h + 1) * cfg.d_head), cfg.d_head // 2
    if cfg.qk_core:
        q = torch.stack([a.qk_core[h].T @ row for row in q])
    if cfg.key_conv:
        taps, past = a.key_conv[rows], [torch.zeros(cfg.d_head)] * 2 + list(k)
        k = torch.stack([sum(past[i + n] * taps[:, n] for n in range(3)) for i in range(len(k))])
    if cfg.key_shift:
        k = torch.cat([_before(k)[:, :half], k[:, half:]], 1)
    if h < cfg.induction_heads:
        k = _before(k)
    if cfg.qk_norm:
        q, k = (s / (s.pow(2).mean(1, keepdim=True) + 1.2e-7).sqrt() for s in (q, k))
    if cfg.qk_gain:
        q, k = q * a.q_gain[rows], k * a.k_gain[rows]
    if cfg.head_temperature:
        q = q * a.head_temperature[h]
    if cfg.position == "rope":
        q, k = _turned(q), _turned(k)
    return q, k


def _score(a, cfg, x, q, k, h, i, j):
    score = q[i] @ k[j] / math.sqrt(cfg.d_head)
    if cfg.position == "alibi":
        score = score - 2 ** (-8 * (h + 1) / cfg.num_heads) * (i - j)
    if cfg.position == "t5":  # these lengths are below the first shared bucket
        score = score + a.relative_bias[i - j, h]
    if cfg.query_distance:
        score = score + q[i] @ a.query_distance[i - j] / math.sqrt(cfg.d_head)
    if cfg.forget_gate:
        for position in range(j + 1, i + 1):
            gate = torch.sigmoid(a.forget_gate[h] @ x[position] + a.forget_bias[h])
            score = score + gate.log()
    return score


def _before(k):
    return torch.cat([torch.zeros(1, k.shape[1]), k[:-1]])


def _turned(x):
    """Rotary positions as complex numbers."""
    half = x.shape[1] // 2
    rate = torch.tensor([10000.0 ** (-n / half) for n in range(half)])
    angle = torch.arange(len(x))[:, None] * rate
    pair = torch.complex(x[:, :half], x[:, half:]) * torch.polar(torch.ones_like(angle), angle)
    return torch.cat([pair.real, pair.imag], 1)
