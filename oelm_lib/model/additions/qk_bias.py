"""Biases of the queries and keys, trained also where W_q and W_k are frozen.

Formula: W x + b, b = 0 at the start.
Parameters per layer: 2 D.
"""

from oelm_lib.model.additions.base import Addition, Parameter, zeros


class Bias(Addition):
    folds = True

    def parameters(self, cfg):
        return {f"{side}_bias": Parameter((cfg.d_model,), zeros) for side in ("q", "k")}

    def project(self, attention, x, heads, side):
        return heads + getattr(attention, f"{side}_bias").view(attention.num_heads, 1, -1)


ADDITION = Bias()
