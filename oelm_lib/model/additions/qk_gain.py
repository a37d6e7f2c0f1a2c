"""A gain for each dimension of the queries and of the keys.

Formula: g * q, g' * k, both 1 at the start.
Parameters per layer: 2 D.
"""

from oelm_lib.model.additions.base import Addition, Parameter, ones


class Gain(Addition):
    folds = True

    def parameters(self, cfg):
        gain = Parameter((cfg.d_model,), ones)
        return {"q_gain": gain, "k_gain": gain}

    def transform(self, attention, q, k, positions):
        heads = attention.num_heads
        return q * attention.q_gain.view(heads, 1, -1), k * attention.k_gain.view(heads, 1, -1)


ADDITION = Gain()
