"""Attention from queries, keys, values and a bias of the scores, by the fastest exact kernel."""

import math
from itertools import zip_longest

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from oelm_lib.model.cost import QUERY_BLOCK
from oelm_lib.model.dropout import is_eager_cpu, keep_mask, keep_scale


def attend(
    q: Float[Tensor, "B H T K"],
    k: Float[Tensor, "B H S K"],
    v: Float[Tensor, "B H S K"],
    bias: Float[Tensor, "#B H T S"] | None,
    dropout_p: float,
) -> Float[Tensor, "B H T K"]:
    """Return softmax(q.k / sqrt(K) + bias) v over this and earlier positions.

    Args:
        k: Of the positions up to the last query; T is 1 or S.
        bias: Holds the causal mask; None: the causal mask alone.
        dropout_p: Dropout probability of the attention weights.
    """
    square = q.shape[2] == k.shape[2]
    if square and is_eager_cpu(q) and (dropout_p or (bias is not None and bias.requires_grad)):
        return BlockedAttention.apply(q, k, v, bias, dropout_p)
    is_causal = square and bias is None
    return F.scaled_dot_product_attention(q, k, v, bias, dropout_p, is_causal=is_causal)


class BlockedAttention(torch.autograd.Function):
    """Causal attention for a CPU with dropout, or a bias that is trained.

    torch's fast CPU kernel supports neither. The result is exact: each block of queries takes its
    softmax over all keys up to the block's end.
    """

    @staticmethod
    def forward(
        ctx, q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None, dropout_p: float
    ) -> Tensor:
        """Attend; q, k, v are (B, H, T, K), bias (1 or B, H, T, T)."""
        ctx.scale, ctx.keep_scale = q.shape[-1] ** -0.5, keep_scale(dropout_p)
        ctx.bias_shape = None if bias is None else bias.shape
        y, all_weights, all_keep = torch.empty_like(q), [], []
        for b, start, end in _blocks(q):
            if bias is None:
                mask = torch.full((end - start, end), -math.inf).triu_(start + 1)
            else:
                mask = bias[b % len(bias), :, start:end, :end]
            # (H, Q, end)
            scores = torch.baddbmm(mask, q[b, :, start:end], k[b, :, :end].mT, alpha=ctx.scale)
            weights = scores.softmax(-1)
            all_weights.append(weights)
            if dropout_p:
                keep = keep_mask(scores.shape, dropout_p)
                all_keep.append(keep)
                weights = torch.where(keep, weights, 0.0)
            y[b, :, start:end] = weights @ v[b, :, :end]
        ctx.save_for_backward(q, k, v, *all_weights, *all_keep)
        return y.mul_(ctx.keep_scale) if dropout_p else y

    @staticmethod
    def backward(ctx, grad: Tensor) -> tuple[Tensor | None, ...]:
        """Return the gradients of q, k, v and the bias."""
        q, k, v, *saved = ctx.saved_tensors
        blocks = _blocks(q)
        all_weights, all_keep = saved[: len(blocks)], saved[len(blocks) :]  # no masks: no dropout
        grad = grad * ctx.keep_scale if all_keep else grad
        dq, dk, dv = torch.empty_like(q), torch.zeros_like(k), torch.zeros_like(v)
        d_bias = grad.new_zeros(ctx.bias_shape) if ctx.needs_input_grad[3] else None
        for (b, start, end), weights, keep in zip_longest(blocks, all_weights, all_keep):
            dy = grad[b, :, start:end]  # (H, Q, K)
            kept = weights if keep is None else torch.where(keep, weights, 0.0)
            dv[b, :, :end] += kept.mT @ dy
            d_weights = dy @ v[b, :, :end].mT
            if keep is not None:
                d_weights = torch.where(keep, d_weights, 0.0)
            d_scores = torch._softmax_backward_data(d_weights, weights, -1, weights.dtype)
            if d_bias is not None:
                d_bias[b % len(d_bias), :, start:end, :end] += d_scores
            d_scores.mul_(ctx.scale)
            dq[b, :, start:end] = d_scores @ k[b, :, :end]
            dk[b, :, :end] += d_scores.mT @ q[b, :, start:end]
        return dq, dk, dv, d_bias, None


def _blocks(q: Tensor) -> list[tuple[int, int, int]]:
    """Return (sequence, first query, one past the last) of each block."""
    starts = range(0, q.shape[2], QUERY_BLOCK)
    return [(b, s, min(s + QUERY_BLOCK, q.shape[2])) for b in range(q.shape[0]) for s in starts]
