"""Initial weights, each drawn from a generator named after its parameter."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from oelm_lib.config import ModelConfig
from oelm_lib.seeds import named_generator

INIT_STD = 0.02


def init_weights_(model: nn.Module, cfg: ModelConfig, seed: int) -> None:
    """Fill every parameter of a GPT in place; a name and a seed give the same values in every arm.

    Matrices and embeddings are N(0, 0.02), biases 0, norms' gains 1. Query and key projections
    follow `cfg.qk_init` and `cfg.qk_scale`, both inits from the same Gaussian draw. Parameters of
    additions start as these declare.
    """
    starts = {
        f"blocks.{layer}.attention.{name}": parameter.start
        for layer, block in enumerate(model.blocks)
        for addition in block.attention.additions
        for name, parameter in addition.parameters(cfg).items()
    }
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if name in starts:
                starts[name](weight, named_generator(seed, name))
            elif weight.dim() == 1:
                weight.fill_(1.0 if name.endswith(".weight") else 0.0)
            else:
                weight.copy_(torch.randn(weight.shape, generator=named_generator(seed, name)))
                _scale(name, weight, cfg)
        for block in model.blocks:
            for addition in block.attention.additions:
                addition.initialize(block.attention)


def _scale(name: str, weight: Tensor, cfg: ModelConfig) -> None:
    """Turn a draw from N(0, 1) into the start of a matrix."""
    if not name.endswith(("q_proj.weight", "k_proj.weight")):
        weight.mul_(INIT_STD)
    elif cfg.qk_init == "orthogonal":
        weight.copy_(head_orthogonal(weight, cfg.num_heads)).mul_(cfg.qk_scale)
    else:
        weight.mul_(cfg.qk_scale / cfg.d_model**0.5)


def head_orthogonal(gaussian: Float[Tensor, "E D"], num_heads: int) -> Float[Tensor, "E D"]:
    """Orthonormalise each head's rows of a Gaussian query or key projection.

    `gaussian` is laid out like an `nn.Linear` weight: rows h*K .. (h+1)*K-1 (K = E // num_heads)
    feed head h. Each (K, D) block gets orthonormal rows, W_h @ W_h.T = I, uniform and independent
    of the other heads. Rows of different heads are not orthogonal; `nn.init.orthogonal_` on the
    whole matrix would make them so, and that is a different experiment.

    Raises:
        ValueError: H does not divide E, or K is above D.

    Units:
        Rows have norm 1. For independent unit-variance inputs q.k / sqrt(K) then has standard
        deviation 1; under N(0, s^2) weights it is s^2 * D. Compare arms with that in mind.

    Source:
        Head-wise QR: Orthogonal-ELM-Transformers, README. The sign fix that makes QR uniform:
        Mezzadri 2007, arXiv:math-ph/0609050.
    """
    rows, d_model = gaussian.shape
    if rows % num_heads or rows // num_heads > d_model:
        raise ValueError(
            f"{rows} rows cannot be split into {num_heads} heads of at most {d_model} rows"
        )
    heads = gaussian.double().reshape(num_heads, rows // num_heads, d_model)  # (H, K, D)
    q, r = torch.linalg.qr(heads.mT)  # (H, D, K), (H, K, K)
    # (H, K); never 0, which would blank a row
    signs = torch.where(r.diagonal(dim1=-2, dim2=-1) < 0, -1.0, 1.0)
    return (q * signs.unsqueeze(-2)).mT.reshape(rows, d_model).to(gaussian.dtype)
