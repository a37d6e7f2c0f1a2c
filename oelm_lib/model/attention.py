"""Causal self-attention whose query and key projections may stay at their random start."""

from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from oelm_lib.config import ModelConfig
from oelm_lib.model.dropout import DroppedAttention, draws_bits, dropout


class CausalSelfAttention(nn.Module):
    """Multi-head attention with separate bias-free Q, K, V, O projections.

    Frozen means `requires_grad=False` on an ordinary Linear: baseline and frozen arms have the same state dict.
    """

    def __init__(self, cfg: ModelConfig, layer: int):
        super().__init__()
        self.num_heads = cfg.num_heads
        self.dropout = cfg.dropout
        self.q_proj = nn.Linear(cfg.d_model, cfg.d_model, bias=False)
        self.k_proj = nn.Linear(cfg.d_model, cfg.d_model, bias=False)
        self.v_proj = nn.Linear(cfg.d_model, cfg.d_model, bias=False)
        self.o_proj = nn.Linear(cfg.d_model, cfg.d_model, bias=False)
        chosen = cfg.frozen_layers == "all" or layer in cfg.frozen_layers
        self.q_proj.weight.requires_grad = not (cfg.freeze_q and chosen)
        self.k_proj.weight.requires_grad = not (cfg.freeze_k and chosen)

    def forward(self, x: Float[Tensor, "B T D"]) -> Float[Tensor, "B T D"]:
        """Attend to this and earlier positions."""
        q, k, v = (self._heads(proj(x)) for proj in (self.q_proj, self.k_proj, self.v_proj))
        p = self.dropout if self.training else 0.0
        if p and draws_bits(q):
            y = DroppedAttention.apply(q, k, v, p)  # (B, H, T, K)
        else:
            y = F.scaled_dot_product_attention(q, k, v, is_causal=True, dropout_p=p)
        y = y.transpose(1, 2).flatten(2)  # (B, T, D)
        return dropout(self.o_proj(y), self.dropout, self.training)

    def _heads(self, x: Float[Tensor, "B T D"]) -> Float[Tensor, "B H T K"]:
        return x.unflatten(2, (self.num_heads, -1)).transpose(1, 2)
