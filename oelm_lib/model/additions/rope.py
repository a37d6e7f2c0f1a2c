"""Queries and keys rotated by their positions, in place of learned position embeddings.

Formula: the pair (n, n + K/2) of q and k is turned by position * BASE^(-2n/K).
Parameters per layer: 0.
Source: Su et al. 2021, arXiv:2104.09864.
"""

from oelm_lib.model.additions.base import Addition

BASE = 10000.0


class Rotation(Addition):
    def table(self, cfg, distance):
        from torch import arange

        half = cfg.d_head // 2
        rate = BASE ** (-arange(half, device=distance.device) / half)
        angle = arange(distance.shape[1], device=distance.device)[:, None] * rate  # (S, K/2)
        return angle.cos(), angle.sin()

    def transform(self, attention, q, k, positions):
        cos, sin = positions.tables[self.name]
        first = len(cos) - q.shape[2]
        return rotate(q, cos[first:], sin[first:]), rotate(k, cos, sin)


def rotate(x, cos, sin):
    """Turn the pairs (n, n + K/2) of x (B, H, T, K) by the angles of each position (T, K/2)."""
    from torch import cat

    a, b = x.chunk(2, dim=-1)
    return cat([a * cos - b * sin, b * cos + a * sin], dim=-1)


ADDITION = Rotation()
