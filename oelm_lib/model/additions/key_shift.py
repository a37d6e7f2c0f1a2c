"""The first half of each head's key comes from the position before.

Formula: k_i <- (first half of k_{i-1}, second half of k_i).
Parameters per layer: 0.
Source: compare KV shifting, Xu et al. 2024, arXiv:2411.19574.
"""

from oelm_lib.model.additions.base import Addition, earlier


class KeyShift(Addition):
    def transform(self, attention, q, k, positions):
        from torch import cat

        shifted, kept = k.chunk(2, dim=-1)
        return q, cat([earlier(shifted, 1), kept], dim=-1)


ADDITION = KeyShift()
