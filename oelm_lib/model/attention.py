"""Causal self-attention whose query and key projections may stay at their random start, with what may be added.

The additions in the order in which they act (but qk_tied), with their parameters for H heads of width K, width D:

    delta_rank  W_h + B_h A_h for each head's rows of W_q and W_k    2 r (D + K) H  Hu et al. 2021, arXiv:2106.09685
    qk_bias     W x + b                                              2 D
    qk_core     q_h M_h, so that scores are q_h M_h k_h              H K^2
    key_conv    k_i <- w_0 k_{i-2} + w_1 k_{i-1} + w_2 k_i           3 D            So et al. 2021, arXiv:2109.08668
    key_shift   first half of k_i <- first half of k_{i-1}           0              cf. Xu et al. 2024, arXiv:2411.19574
    qk_norm     q_h / rms(q_h), k_h / rms(k_h)                       0              Henry et al. 2020, arXiv:2010.04245
    qk_gain     g * q, g' * k, a factor per dimension                2 D
    head_temperature  t_h q_h                                        H
    position    rope: q and k rotated by their positions             0              Su et al. 2021, arXiv:2104.09864
                alibi: scores - slope_h * distance                   0              Press et al. 2021, arXiv:2108.12409
                t5: scores + a learned bias by head and distance     32 H           Raffel et al. 2019, arXiv:1910.10683
    qk_tied     W_k is W_q, and its bias too                         -D^2           Kitaev et al. 2020, arXiv:2001.04451

Whatever is added starts without effect on the scores, except qk_norm, key_shift, qk_tied and position.
"""

import math

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from oelm_lib.config import ModelConfig
from oelm_lib.model.dropout import DroppedAttention, draws_bits, dropout

CONV_WIDTH = 3
ROPE_BASE = 10000.0
T5_BUCKETS, T5_EXACT, T5_FAR = 32, 16, 128
"""Buckets of distances: those below T5_EXACT have one each, the others grow with the logarithm up to T5_FAR."""


class CausalSelfAttention(nn.Module):
    """Multi-head attention with separate Q, K, V, O projections.

    Frozen means `requires_grad=False` on an ordinary Linear: baseline and frozen arms have the same state dict, an
    addition only adds keys.
    """

    def __init__(self, cfg: ModelConfig, layer: int):
        super().__init__()
        self.cfg, self.num_heads, self.dropout = cfg, cfg.num_heads, cfg.dropout
        d, h, k, r = cfg.d_model, cfg.num_heads, cfg.d_head, cfg.delta_rank
        self.q_proj = nn.Linear(d, d, bias=cfg.qk_bias)
        self.k_proj = self.q_proj if cfg.qk_tied else nn.Linear(d, d, bias=cfg.qk_bias)
        self.v_proj = nn.Linear(d, d, bias=False)
        self.o_proj = nn.Linear(d, d, bias=False)
        for side in ("q", "k"):
            if r:
                self.register_parameter(f"{side}_delta_a", _parameter(h * r, d))
                self.register_parameter(f"{side}_delta_b", _parameter(h, k, r))
            if cfg.qk_gain:
                self.register_parameter(f"{side}_gain", _parameter(d))
        if cfg.qk_core:
            self.qk_core = _parameter(h, k, k)
        if cfg.key_conv:
            self.key_conv = _parameter(d, CONV_WIDTH)
        if cfg.head_temperature:
            self.head_temperature = _parameter(h)
        if cfg.position == "t5":
            self.relative_bias = _parameter(T5_BUCKETS, h)
        chosen = cfg.frozen_layers == "all" or layer in cfg.frozen_layers
        sides = (("q_proj", cfg.freeze_q), ("k_proj", cfg.freeze_k))
        self._freezable = [side for side, frozen in sides if frozen and chosen]
        for side in self._freezable:
            getattr(self, side).weight.requires_grad = cfg.ever_trains_qk

    def freeze(self, step: int) -> bool:
        """Freeze or train W_q and W_k as the config asks for step 0, 1, ...; returns whether that is a change."""
        weights = [getattr(self, side).weight for side in self._freezable]
        trained = not self.cfg.freezes_at(step)
        changed = any(weight.requires_grad != trained for weight in weights)
        for weight in weights:
            weight.requires_grad = trained
        return changed

    def forward(
        self, x: Float[Tensor, "B T D"], past: list[Tensor] | None = None
    ) -> Float[Tensor, "B T D"]:
        """Attend to this and earlier positions; `past` is as in `heads`."""
        q, k, v, bias = self.heads(x, past)
        p = self.dropout if self.training else 0.0
        if p and bias is None and draws_bits(q):
            y = DroppedAttention.apply(q, k, v, p)  # (B, H, T, K)
        else:
            # A single query after the past may look at all keys.
            causal = bias is None and q.shape[2] == k.shape[2]
            y = F.scaled_dot_product_attention(
                q, k, v, attn_mask=bias, is_causal=causal, dropout_p=p
            )
        y = y.transpose(1, 2).flatten(2)  # (B, T, D)
        return dropout(self.o_proj(y), self.dropout, self.training)

    def heads(
        self, x: Float[Tensor, "B T D"], past: list[Tensor] | None = None
    ) -> tuple[
        Float[Tensor, "B H T K"],
        Float[Tensor, "B H S K"],
        Float[Tensor, "B H S K"],
        Float[Tensor, "H T S"] | None,
    ]:
        """What attention is computed from: queries, keys, values, and a bias of the scores that holds the causal mask.

        The bias is None where the plain causal mask is all. Scores are q.k / sqrt(K) + bias.

        Args:
            past: Keys, as projected and no further, and values of the positions before x; [] before the first. It is
                filled with those of all S positions. After a first call x has one position.
        """
        cfg = self.cfg
        q, k, v = self._project(x, "q"), self._project(x, "k"), self._heads(self.v_proj(x))
        if past is not None:
            if past:
                k, v = (
                    torch.cat([before, now], 2) for before, now in zip(past, (k, v), strict=True)
                )
            past[:] = k, v
        first = k.shape[2] - q.shape[2]  # position of the first query
        if cfg.qk_core:
            q = q @ self.qk_core
        if cfg.key_conv:
            k = _causal_conv(k, self.key_conv)
        if cfg.key_shift:
            shifted, kept = k.chunk(2, dim=-1)
            k = torch.cat([_earlier(shifted, 1), kept], dim=-1)
        if cfg.qk_norm:
            q, k = F.rms_norm(q, q.shape[-1:]), F.rms_norm(k, k.shape[-1:])
        q, k = self._scaled(q, k)
        if cfg.position == "rope":
            q, k = _rotate(q, first), _rotate(k)
        return q.to(v.dtype), k.to(v.dtype), v, self._bias(q, first)

    def as_linear(self) -> list[tuple[Float[Tensor, "D D"], Float[Tensor, " D"]]]:
        """Weight and bias of the queries and of the keys with all that is linear at one position folded in.

        That is all but key_conv, key_shift, qk_norm and rotation.
        """
        unit = torch.eye(self.cfg.d_model, device=self.v_proj.weight.device)
        x = torch.cat([torch.zeros_like(unit[:1]), unit])[None]  # (1, 1 + D, D)
        q, k = self._project(x, "q"), self._project(x, "k")
        if self.cfg.qk_core:
            q = q @ self.qk_core
        rows = [side.transpose(1, 2).flatten(2)[0] for side in self._scaled(q, k)]
        return [((side[1:] - side[0]).T, side[0]) for side in rows]

    def _scaled(self, q: Tensor, k: Tensor) -> tuple[Tensor, Tensor]:
        if self.cfg.qk_gain:
            q, k = (
                x * gain.view(self.num_heads, 1, -1)
                for x, gain in ((q, self.q_gain), (k, self.k_gain))
            )
        if self.cfg.head_temperature:
            q = q * self.head_temperature.view(-1, 1, 1)
        return q, k

    def _project(self, x: Float[Tensor, "B T D"], side: str) -> Float[Tensor, "B H T K"]:
        heads = self._heads(getattr(self, f"{side}_proj")(x))
        if not self.cfg.delta_rank:
            return heads
        low = self._heads(F.linear(x, getattr(self, f"{side}_delta_a")))  # (B, H, T, r)
        return heads + low @ getattr(self, f"{side}_delta_b").mT

    def _heads(self, x: Tensor) -> Tensor:
        """(B, T, H * n) -> (B, H, T, n)."""
        return x.unflatten(2, (self.num_heads, -1)).transpose(1, 2)

    def _bias(self, q: Float[Tensor, "B H T K"], first: int) -> Float[Tensor, "H T S"] | None:
        if self.cfg.position not in ("alibi", "t5"):
            return None
        place = torch.arange(first + q.shape[2], device=q.device)
        distance = place[first:, None] - place  # (T, S), of each query (row) from each key
        if self.cfg.position == "alibi":
            head = torch.arange(1, self.num_heads + 1, device=q.device)
            bias = -(2.0 ** (-8.0 * head / self.num_heads)).view(-1, 1, 1) * distance
        else:
            bias = self.relative_bias[t5_bucket(distance)].permute(2, 0, 1)
        return bias.masked_fill(distance < 0, -math.inf).to(q.dtype)


def attention_scores(
    q: Float[Tensor, "B H T K"], k: Float[Tensor, "B H T K"], bias: Float[Tensor, "H T T"] | None
) -> Float[Tensor, "B H T T"]:
    """Scores of what `heads` returns, -inf on later keys: their softmax is what attention gives to each key."""
    scores = q @ k.mT / q.shape[-1] ** 0.5
    if bias is not None:
        return scores + bias
    return scores.masked_fill(torch.ones_like(scores[0, 0], dtype=torch.bool).triu(1), -math.inf)


def t5_bucket(distance: Tensor) -> Tensor:
    """Number of the bucket of each distance to an earlier position; later ones fall into bucket 0."""
    distance = distance.clamp(min=0)
    far = (
        torch.log(distance.clamp(min=1) / T5_EXACT)
        / math.log(T5_FAR / T5_EXACT)
        * (T5_BUCKETS - T5_EXACT)
    )
    far = (T5_EXACT + far.long()).clamp(max=T5_BUCKETS - 1)
    return torch.where(distance < T5_EXACT, distance, far)


def _parameter(*shape: int) -> nn.Parameter:
    return nn.Parameter(torch.empty(shape))


def _earlier(x: Float[Tensor, "B H T n"], steps: int) -> Float[Tensor, "B H T n"]:
    """What stood `steps` positions before; 0 before the first."""
    return F.pad(x, (0, 0, steps, 0))[:, :, : x.shape[2]]


def _causal_conv(
    k: Float[Tensor, "B H T K"], weight: Float[Tensor, "D 3"]
) -> Float[Tensor, "B H T K"]:
    taps = weight.view(k.shape[1], 1, k.shape[3], CONV_WIDTH).unbind(
        -1
    )  # each (H, 1, K), the last for the present
    return sum(_earlier(k, CONV_WIDTH - 1 - n) * tap for n, tap in enumerate(taps))


def _rotate(x: Float[Tensor, "B H T K"], first: int = 0) -> Float[Tensor, "B H T K"]:
    """Turn the pairs (n, n + K/2) by angles that grow with the position, which starts at `first`."""
    half = x.shape[-1] // 2
    rate = ROPE_BASE ** (-torch.arange(half, device=x.device) / half)
    angle = torch.arange(first, first + x.shape[2], device=x.device)[:, None] * rate  # (T, K/2)
    a, b = x.chunk(2, dim=-1)
    return torch.cat([a * angle.cos() - b * angle.sin(), b * angle.cos() + a * angle.sin()], dim=-1)
