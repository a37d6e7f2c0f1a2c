"""Draw text from a model, a token at a time, with keys and values of earlier positions kept."""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from oelm_lib.model.dropout import evaluation_mode
from oelm_lib.model.gpt import GPT


@torch.no_grad()
def generate(
    model: GPT,
    tokens: Int[Tensor, "B T"],
    count: int,
    generator: torch.Generator,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
) -> Int[Tensor, "B N"]:
    """Continue each row by `count` tokens, or fewer if the context is full.

    The model's training mode is restored.

    Args:
        generator: On the CPU; the only source of randomness.
        temperature: Divides the logits; 0 takes the likeliest token.
        top_k: Draw from the k likeliest tokens.
        top_p: Draw from the fewest tokens that together have this probability (Holtzman et al.
            2019, arXiv:1904.09751).
    """
    drawn: list[Tensor] = []
    past: list[dict[str, Tensor]] = [{} for _ in model.blocks]
    with evaluation_mode(model):
        for _ in range(min(count, model.cfg.max_seq_len - tokens.shape[1] + 1)):
            logits = model.next_logits(drawn[-1] if drawn else tokens, past).float().cpu()
            if temperature == 0:
                chosen = logits.argmax(-1, keepdim=True)
            else:
                share = probabilities(logits / temperature, top_k, top_p)
                chosen = torch.multinomial(share, 1, generator=generator)
            drawn.append(chosen.to(tokens.device))  # (B, 1)
    return torch.cat([tokens[:, :0], *drawn], 1)


def probabilities(
    logits: Float[Tensor, "B V"], top_k: int | None = None, top_p: float | None = None
) -> Float[Tensor, "B V"]:
    """Return the softmax over the tokens that top_k and top_p keep, 0 for the others."""
    if top_k is not None:
        least = logits.topk(min(top_k, logits.shape[-1])).values[:, -1:]
        logits = logits.masked_fill(logits < least, -torch.inf)
    share = logits.softmax(-1)
    if top_p is None:
        return share
    ordered, places = share.sort(descending=True)
    before = ordered.cumsum(-1) - ordered  # total of the likelier tokens
    left_out = before >= top_p
    left_out[:, 0] = False  # a tiny top_p is 0 in float32 and would leave out every token
    kept = torch.zeros_like(share).scatter(-1, places, ordered.masked_fill(left_out, 0.0))
    return kept / kept.sum(-1, keepdim=True)
