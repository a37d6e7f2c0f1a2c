"""A trained factor for the scores of each head.

Formula: q_h <- t_h q_h, t = 1 at the start.
Parameters per layer: H.
"""

from oelm_lib.model.additions.base import Addition, Parameter, ones


class HeadTemperature(Addition):
    folds = True

    def parameters(self, cfg):
        return {"head_temperature": Parameter((cfg.num_heads,), ones)}

    def transform(self, attention, q, k, positions):
        return q * attention.head_temperature.view(-1, 1, 1), k


ADDITION = HeadTemperature()
