"""Cross entropy that never holds all logits; own code only for `make gpu` on torch before 2.13."""

from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812


def chunked_loss(
    x: Float[Tensor, "N D"],
    head: Float[Tensor, "V D"],
    targets: Int[Tensor, " N"],
    ignored: int,
    chunk: int,
) -> Float[Tensor, ""]:
    """Return the mean cross entropy in nats of the logits `x @ head.T`.

    Args:
        ignored: Target that is not scored.
        chunk: Positions whose logits are held at once.
    """
    if not hasattr(nn, "LinearCrossEntropyOptions"):
        return ChunkedLoss.apply(x, head, targets, ignored, chunk)
    options = nn.LinearCrossEntropyOptions(
        allow_retain_graph=torch.compiler.is_compiling(),
        batch_chunk_size=chunk,
        chunking_method=None,
    )
    return F.linear_cross_entropy(x, head, targets, ignore_index=ignored, options=options)


class ChunkedLoss(torch.autograd.Function):
    """The same in operations of torch 2.9; the gradients are made with the loss."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, head: Tensor, targets: Tensor, ignored: int, chunk: int
    ) -> Tensor:
        """Sum the losses of all chunks, and what their logits give to x and head."""
        loss, d_x, d_head = x.new_zeros(()), [], torch.zeros_like(head)
        scored = targets != ignored
        share = scored / scored.sum()  # (N,): weight of a position in the mean
        goals = targets.where(scored, 0)
        chunks = (tensor.split(chunk) for tensor in (x, goals[:, None], share[:, None]))
        for part, goal, weight in zip(*chunks, strict=True):
            logits = part @ head.T
            logits -= logits.amax(-1, keepdim=True)
            goal_logits = logits.gather(-1, goal)
            total = logits.exp_().sum(-1, keepdim=True)
            loss += ((total.log() - goal_logits) * weight).sum()
            d_logits = logits.mul_(weight / total).scatter_add_(-1, goal, -weight)
            d_x.append(d_logits @ head)
            d_head.addmm_(d_logits.T, part)
            del logits, d_logits  # before the next chunk's are made
        ctx.save_for_backward(torch.cat(d_x), d_head)
        return loss

    @staticmethod
    def backward(ctx: Any, d_loss: Tensor) -> tuple[Tensor | None, ...]:
        """Multiply the gradients by that of the loss."""
        d_x, d_head = ctx.saved_tensors
        return d_x * d_loss, d_head * d_loss, None, None, None
