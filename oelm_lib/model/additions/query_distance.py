"""A bias of the scores by distance that depends on the query.

Formula: scores + q_i . r[bucket(distance)] / sqrt(K), r = 0 at the start, shared by the heads.
Parameters per layer: 32 K.
Source: Shaw et al. 2018, arXiv:1803.02155, with T5's buckets.

The bias of `position: t5` is its counterpart that does not depend on the query.
"""

from oelm_lib.model.additions.base import Addition, Parameter, Product, zeros
from oelm_lib.model.additions.t5 import BUCKETS, bucket


class QueryDistance(Addition):
    def parameters(self, cfg):
        return {"query_distance": Parameter((BUCKETS, cfg.d_head), zeros)}

    def products(self, cfg, batch_size):
        return [Product(1, batch_size * cfg.num_heads * cfg.max_seq_len, cfg.d_head, BUCKETS)]

    def table(self, cfg, distance):
        return bucket(distance)

    def score(self, attention, q, positions, remembered):
        by_bucket = q @ attention.query_distance.T / q.shape[-1] ** 0.5  # (B, H, T, 32)
        chosen = positions.tables[self.name].expand(*q.shape[:2], -1, -1)
        return by_bucket.gather(-1, chosen)


ADDITION = QueryDistance()
