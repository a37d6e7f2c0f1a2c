"""A trained low-rank matrix beside each head's rows of W_q and W_k.

Formula: W_h + B_h A_h, A Gaussian and B = 0 at the start.
Parameters per layer: 2 r (D + K) H.
Source: LoRA, Hu et al. 2021, arXiv:2106.09685.
"""

from oelm_lib.model.additions.base import Addition, Parameter, Product, gaussian, zeros


class LowRankDelta(Addition):
    folds = True

    def parameters(self, cfg):
        rank, heads = cfg.delta_rank, cfg.num_heads
        shapes = {}
        for side in ("q", "k"):
            down = Parameter((heads * rank, cfg.d_model), gaussian(cfg.d_model**-0.5))
            shapes[f"{side}_delta_a"] = down
            shapes[f"{side}_delta_b"] = Parameter((heads, cfg.d_head, rank), zeros)
        return shapes

    def products(self, cfg, batch_size):
        rows, heads = batch_size * cfg.max_seq_len, batch_size * cfg.num_heads
        down = Product(1, rows, cfg.d_model, cfg.num_heads * cfg.delta_rank)
        up = Product(heads, cfg.max_seq_len, cfg.delta_rank, cfg.d_head)
        return [down, up] * 2

    def project(self, attention, x, heads, side):
        down, up = getattr(attention, f"{side}_delta_a"), getattr(attention, f"{side}_delta_b")
        low = attention.split_heads(x @ down.T)  # (B, H, T, r)
        return heads + low @ up.mT


ADDITION = LowRankDelta()
