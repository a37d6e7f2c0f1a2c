"""A trained matrix between each head's query and key.

Formula: q_h <- q_h M_h, M = I at the start.
Parameters per layer: H K^2.
"""

from oelm_lib.model.additions.base import Addition, Parameter, Product, identity


class Core(Addition):
    folds = True

    def parameters(self, cfg):
        return {"qk_core": Parameter((cfg.num_heads, cfg.d_head, cfg.d_head), identity)}

    def products(self, cfg, batch_size):
        return [Product(batch_size * cfg.num_heads, cfg.max_seq_len, cfg.d_head, cfg.d_head)]

    def transform(self, attention, q, k, positions):
        return q @ attention.qk_core, k


ADDITION = Core()
