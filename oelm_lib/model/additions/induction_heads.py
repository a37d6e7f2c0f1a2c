"""The first n heads attend to what followed their own token, untrained.

Formula: W_k,h starts as W_q,h, and k_h,i <- k_h,{i-1}, for h < n.
Parameters per layer: 0.

A frozen tied head gives its largest score to a key of the same token; with the keys shifted by one
position, that is induction in one layer. Where W_q and W_k are trained, they become different.
"""

from oelm_lib.model.additions.base import Addition, earlier


class InductionHeads(Addition):
    def initialize(self, attention):
        rows = attention.cfg.induction_heads * attention.cfg.d_head
        attention.k_proj.weight[:rows] = attention.q_proj.weight[:rows]

    def transform(self, attention, q, k, positions):
        from torch import cat

        count = attention.cfg.induction_heads
        return q, cat([earlier(k[:, :count], 1), k[:, count:]], dim=1)


ADDITION = InductionHeads()
