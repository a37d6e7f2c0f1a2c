"""Measures of attention maps, weights and losses: pure functions of arrays.

Attention maps A are (..., T, T); row i sums to 1 over the keys 0..i. Leading axes (layer, head,
sequence) are kept.
"""

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy.special import entr

LOCAL = 4
"""Distances 0..3 count as local: LocFoc_N of Xue et al. 2025, arXiv:2510.11602, section 4.4."""


def normalised_entropy(maps: Float[np.ndarray, "*n T T"]) -> Float[np.ndarray, "*n"]:
    """Return the mean over queries i >= 1 of -sum a log a / log(i + 1).

    0 for one key, 1 for uniform attention. Source: Xue et al. 2025, arXiv:2510.11602.
    """
    entropy = entr(maps).sum(-1)[..., 1:]  # entr(a) = -a log a
    return (entropy / np.log(np.arange(2, maps.shape[-1] + 1))).mean(-1)


def concentration(maps: Float[np.ndarray, "*n T T"]) -> Float[np.ndarray, "*n"]:
    """Return ||A||_F / sqrt(T): 1 where each query takes one key.

    Source: Xue et al. 2025; divided by sqrt(T) so that lengths compare.
    """
    return np.sqrt((maps**2).sum((-2, -1)) / maps.shape[-1])


def first_token_mass(maps: Float[np.ndarray, "*n T T"]) -> Float[np.ndarray, "*n"]:
    """Return the mean share that queries i >= 1 give to token 0.

    Source: the attention sink of Xiao et al. 2023, arXiv:2309.17453.
    """
    return maps[..., 1:, 0].mean(-1)


def local_mass(maps: Float[np.ndarray, "*n T T"]) -> Float[np.ndarray, "*n"]:
    """Return the mean share at distances 0..LOCAL-1, over queries with at least LOCAL + 1 keys."""
    near = sum(np.diagonal(maps, -d, -2, -1)[..., LOCAL - d :] for d in range(LOCAL))
    return near.mean(-1)


def previous_token_score(maps: Float[np.ndarray, "*n T T"]) -> Float[np.ndarray, "*n"]:
    """Return the mean share that queries i >= 1 give to i - 1.

    Source: TransformerLens, head_detector.py, mode mul.
    """
    return np.diagonal(maps, -1, -2, -1).mean(-1)


def repeated_tokens(
    rng: np.random.Generator, ids: Int[np.ndarray, " V"], first: int, period: int, count: int
) -> Int[np.ndarray, "N L"]:
    """Return sequences (count, 1 + 2 * period): `first`, then a block of random `ids` twice."""
    block = rng.choice(ids, (count, period))
    return np.concatenate([np.full((count, 1), first), block, block], 1)


def duplicate_token_score(
    maps: Float[np.ndarray, "*n T T"], period: int
) -> Float[np.ndarray, "*n"]:
    """Return the mean share from the second copy of repeated_tokens to the same token of the first.

    Source: TransformerLens, head_detector.py.
    """
    return np.diagonal(maps, -period, -2, -1)[..., 1:].mean(-1)


def induction_score(maps: Float[np.ndarray, "*n T T"], period: int) -> Float[np.ndarray, "*n"]:
    """Return the mean share from the second copy to the token after the same one of the first.

    Source: Olsson et al. 2022, arXiv:2209.11895.
    """
    return np.diagonal(maps, 1 - period, -2, -1)[..., 2:].mean(-1)


def copying_mass(
    maps: Float[np.ndarray, "N *n T T"], tokens: Int[np.ndarray, "N L"]
) -> Float[np.ndarray, "*n"]:
    """Return the mean share given to keys that hold the next token.

    The mean is over the queries i < L - 1 whose next token stood earlier in the window.
    """
    holds = np.tril(
        tokens[:, 1:, None] == tokens[:, None, :-1]
    )  # (N, T, T): key j holds what follows query i
    shares = np.einsum("n...ij,nij->...ni", maps, holds)
    return shares[..., holds.any(-1)].mean(-1)


def in_context_score(losses: Float[np.ndarray, "N T"]) -> float:
    """Return the loss at token 500 minus the loss at token 50 of 512, scaled to T; lower is better.

    Source: Olsson et al. 2022.
    """
    length = losses.shape[1]
    return float(losses[:, length * 500 // 512].mean() - losses[:, length * 50 // 512].mean())


def repeats(tokens: Int[np.ndarray, "N L"], n: int) -> Bool[np.ndarray, "N L-1"]:
    """Return whether each token but the first ends an n-gram that stood earlier in its window.

    With n = 1 the token itself could be copied. n = 2 is the slice of Zoology (Arora et al. 2023,
    arXiv:2312.04927) without its limit on frequent bigrams.
    """
    later, length = tokens[:, 1:], tokens.shape[1]
    repeated = np.zeros(later.shape, bool)
    for back in range(1, length):  # the earlier place is `back` tokens before
        same = tokens[:, back:] == tokens[:, :-back]  # (N, L - back), for the tokens from `back` on
        for _ in range(n - 1):
            same = np.pad(same[:, 1:] & same[:, :-1], ((0, 0), (1, 0)))
        repeated[:, back - 1 :] |= same
    return repeated


def effective_rank(singular_values: Float[np.ndarray, "*n K"]) -> Float[np.ndarray, "*n"]:
    """Return exp of the entropy of s / sum(s). Source: Roy & Vetterli 2007."""
    share = singular_values / singular_values.sum(-1, keepdims=True)
    return np.exp(entr(share).sum(-1))


def qk_spectrum(
    query: Float[np.ndarray, "H K D"],
    key: Float[np.ndarray, "H K D"],
    gain: Float[np.ndarray, " D"],
) -> Float[np.ndarray, "H K"]:
    """Return the singular values of each head's form diag(g) W_q^T W_k diag(g).

    g is the gain of the LayerNorm before it. The form is (D, D) of rank K: with QR of both factors
    its singular values are those of R_q R_k^T.
    """
    r_query, r_key = (
        np.linalg.qr((weight * gain).swapaxes(1, 2), mode="r") for weight in (query, key)
    )
    return np.linalg.svd(r_query @ r_key.swapaxes(1, 2), compute_uv=False)


def orthogonality_error(weight: Float[np.ndarray, "H K D"]) -> Float[np.ndarray, " H"]:
    """Return ||W W^T / s^2 - I||_F / sqrt(K) of each head: 0 for orthonormal rows times s.

    s^2 is the mean square norm of the head's rows.
    """
    gram = weight @ weight.swapaxes(1, 2)
    size = weight.shape[1]
    scale = np.trace(gram, axis1=1, axis2=2)[:, None, None] / size
    return np.sqrt(((gram / scale - np.eye(size)) ** 2).sum((1, 2)) / size)
