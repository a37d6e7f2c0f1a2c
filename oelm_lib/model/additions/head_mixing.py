"""Each head's query and key is a trained mixture of those of all heads.

Formula: q_p <- sum_h A_ph q_h, the same for k with its own matrix, A = I at the start.
Parameters per layer: 2 H^2.
Source: one pseudo-head a head of interleaved head attention, arXiv:2602.21371.

A trained W_q or W_k can absorb it.
"""

from oelm_lib.model.additions.base import Addition, Parameter, Product, identity


class HeadMixing(Addition):
    folds = True

    def parameters(self, cfg):
        square = Parameter((cfg.num_heads, cfg.num_heads), identity)
        return {"q_mixing": square, "k_mixing": square}

    def products(self, cfg, batch_size):
        columns = batch_size * cfg.max_seq_len * cfg.d_head
        return [Product(1, cfg.num_heads, cfg.num_heads, columns)] * 2

    def transform(self, attention, q, k, positions):
        from torch import einsum

        q = einsum("ph,bhtk->bptk", attention.q_mixing, q)
        return q, einsum("ph,bhtk->bptk", attention.k_mixing, k)


ADDITION = HeadMixing()
