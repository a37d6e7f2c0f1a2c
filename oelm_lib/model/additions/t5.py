"""A trained bias of the scores by head and distance, in place of learned position embeddings.

Formula: scores + b_h[bucket(distance)], b = 0 at the start.
Parameters per layer: 32 H.
Source: T5, Raffel et al. 2019, arXiv:1910.10683.
"""

import math

from oelm_lib.model.additions.base import Addition, Parameter, zeros

BUCKETS, EXACT, FAR = 32, 16, 128
"""Distances below EXACT have a bucket each; the others grow with the logarithm up to FAR."""


class RelativeBias(Addition):
    def parameters(self, cfg):
        return {"relative_bias": Parameter((BUCKETS, cfg.num_heads), zeros)}

    def table(self, cfg, distance):
        return bucket(distance)

    def score(self, attention, q, positions, remembered):
        from torch.nn.functional import embedding

        bias = embedding(positions.tables[self.name], attention.relative_bias)  # (T, S, H)
        return bias.permute(2, 0, 1)[None]


def bucket(distance):
    """Return the bucket's number of each distance to an earlier position; 0 for a later one."""
    from torch import log, where

    distance = distance.clamp(min=0)
    far = log(distance.clamp(min=1) / EXACT) / math.log(FAR / EXACT) * (BUCKETS - EXACT)
    return where(distance < EXACT, distance, (EXACT + far.long()).clamp(max=BUCKETS - 1))


ADDITION = RelativeBias()
