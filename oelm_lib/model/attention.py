"""Causal self-attention whose query and key projections may stay at their random start.

What may be added to it is declared in `oelm_lib.model.additions`, a file for each.
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from oelm_lib.config import ModelConfig
from oelm_lib.model.additions import active
from oelm_lib.model.additions.base import Addition, Positions
from oelm_lib.model.attention_kernels import attend
from oelm_lib.model.dropout import dropout


class CausalSelfAttention(nn.Module):
    """Multi-head attention with separate Q, K, V, O projections.

    Frozen means `requires_grad=False` on an ordinary Linear: baseline and frozen arms have the same
    state dict, an addition only adds keys.
    """

    def __init__(self, cfg: ModelConfig, layer: int):
        super().__init__()
        self.cfg, self.num_heads, self.dropout = cfg, cfg.num_heads, cfg.dropout
        self.additions = active(cfg)
        d = cfg.d_model
        self.q_proj = nn.Linear(d, d, bias=False)
        self.k_proj = self.q_proj if cfg.qk_tied else nn.Linear(d, d, bias=False)
        self.v_proj = nn.Linear(d, d, bias=False)
        self.o_proj = nn.Linear(d, d, bias=False)
        for addition in self.additions:
            for name, parameter in addition.parameters(cfg).items():
                self.register_parameter(name, nn.Parameter(torch.empty(parameter.shape)))
        sides = (("q_proj", cfg.freeze_q), ("k_proj", cfg.freeze_k))
        chosen = layer in cfg.freezable_layers
        self._freezable = [side for side, frozen in sides if frozen and chosen]
        for side in self._freezable:
            getattr(self, side).weight.requires_grad = not cfg.freezes_throughout

    def set_frozen(self, step: int) -> None:
        """Freeze or train W_q and W_k as the config asks for step 0, 1, ..."""
        for side in self._freezable:
            getattr(self, side).weight.requires_grad = not self.cfg.freezes_at(step)

    def forward(
        self,
        x: Float[Tensor, "B T D"],
        positions: Positions | None = None,
        past: dict[str, Tensor] | None = None,
    ) -> Float[Tensor, "B T D"]:
        """Attend to this and earlier positions.

        Args:
            positions: What `make_positions` returns for the positions of x; None: it is made here.
            past: As in `heads`.
        """
        q, k, v, bias = self.heads(x, positions, past)
        y = attend(q, k, v, bias, self.dropout if self.training else 0.0)  # (B, H, T, K)
        for addition in self.additions:
            y = addition.output(self, x, y)
        y = y.transpose(1, 2).flatten(2)  # (B, T, D)
        return dropout(self.o_proj(y), self.dropout, self.training)

    def heads(
        self,
        x: Float[Tensor, "B T D"],
        positions: Positions | None = None,
        past: dict[str, Tensor] | None = None,
    ) -> tuple[
        Float[Tensor, "B H T K"],
        Float[Tensor, "B H S K"],
        Float[Tensor, "B H S K"],
        Float[Tensor, "#B H T S"] | None,
    ]:
        """Return queries, keys, values, and the bias of the scores q.k / sqrt(K).

        The bias holds the causal mask; it is None where no addition biases the scores.

        Args:
            past: Projected keys, values and what additions remember of the positions before x, {}
                before the first; extended by those of x. After a first call x has one position.
        """
        if positions is None:
            first = past["keys"].shape[2] if past else 0
            positions = make_positions(self.cfg, self.additions, first, x.shape[1], x.device)
        seen = self._seen(x, past)
        q, k, v = seen["queries"], seen["keys"], seen["values"]
        for addition in self.additions:
            q, k = addition.transform(self, q, k, positions)
        q = q[:, :, -x.shape[1] :]
        q, k = q.to(v.dtype), k.to(v.dtype)
        scores = [a.score(self, q, positions, seen.get(a.name)) for a in self.additions]
        scores = [score for score in scores if score is not None]
        # A GPU's fused kernels take no mask whose last dimension has another stride than 1.
        bias = sum(scores, positions.mask).to(v.dtype).contiguous() if scores else None
        return q, k, v, bias

    def _seen(self, x: Float[Tensor, "B T D"], past: dict[str, Tensor] | None) -> dict[str, Tensor]:
        """Return queries, keys, values and what additions remember, those in `past` first.

        `past` is extended by those of x, but by its queries only where an addition needs them.
        """
        queries, keys = (self._project(x, side, self.additions) for side in "qk")
        seen = {"keys": keys, "values": self.split_heads(self.v_proj(x))}
        seen |= {addition.name: addition.remember(self, x) for addition in self.additions}
        if any(addition.needs_past_queries for addition in self.additions):
            seen["queries"] = queries
        if past is not None:
            for name, tensor in seen.items():
                if tensor is not None:
                    past[name] = torch.cat([past[name], tensor], 2) if name in past else tensor
            seen = past
        return {"queries": queries} | seen

    def as_linear(self) -> list[tuple[Float[Tensor, "D D"], Float[Tensor, " D"]]]:
        """Return weight and bias of the queries and of the keys, with the additions that fold.

        Those in `unfolded(cfg)` are left out.
        """
        unit = torch.eye(self.cfg.d_model, device=self.v_proj.weight.device)
        x = torch.cat([torch.zeros_like(unit[:1]), unit])[None]  # (1, 1 + D, D)
        folding = [addition for addition in self.additions if addition.folds]
        q, k = (self._project(x, side, folding) for side in "qk")
        for addition in folding:
            q, k = addition.transform(self, q, k, None)
        rows = [side.transpose(1, 2).flatten(2)[0] for side in (q, k)]
        return [((side[1:] - side[0]).T, side[0]) for side in rows]

    def split_heads(self, x: Tensor) -> Tensor:
        """Return (B, T, H * n) as (B, H, T, n)."""
        return x.unflatten(2, (self.num_heads, -1)).transpose(1, 2)

    def _project(
        self, x: Float[Tensor, "B T D"], side: str, additions: list[Addition]
    ) -> Float[Tensor, "B H T K"]:
        for addition in additions:
            x = addition.read(self, x, side)
        heads = self.split_heads(getattr(self, f"{side}_proj")(x))
        for addition in additions:
            heads = addition.project(self, x, heads, side)
        return heads


def make_positions(
    cfg: ModelConfig, additions: list[Addition], first: int, length: int, device: torch.device
) -> Positions | None:
    """Return mask and tables of the positions from `first` on; None without additions.

    Args:
        additions: Those of `active(cfg)`, which torch.compile cannot trace.
    """
    if not additions:
        return None
    position = torch.arange(first + length, device=device)
    distance = position[first:, None] - position  # (T, S)
    mask = torch.zeros(distance.shape, device=device).masked_fill_(distance < 0, -torch.inf)
    return Positions(first, mask, {a.name: a.table(cfg, distance) for a in additions})


def attention_scores(
    q: Float[Tensor, "B H T K"],
    k: Float[Tensor, "B H T K"],
    bias: Float[Tensor, "#B H T T"] | None,
) -> Float[Tensor, "B H T T"]:
    """Return the scores of what `heads` returns, -inf on later keys; attention is their softmax."""
    scores = q @ k.mT / q.shape[-1] ** 0.5
    if bias is not None:
        return scores + bias
    return scores.masked_fill(torch.ones_like(scores[0, 0], dtype=torch.bool).triu(1), -torch.inf)
