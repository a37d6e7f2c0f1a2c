"""A gain for each input dimension of W_q and of W_k.

Formula: W (u * x), u = 1 at the start.
Parameters per layer: 2 D.
Source: VeRA, Kopiczko et al. 2023, arXiv:2310.11454.

With head_mixing and qk_gain it is g * mix(W (u * x)), VeRA's sandwich of a frozen matrix.
"""

from oelm_lib.model.additions.base import Addition, Parameter, ones


class InputGain(Addition):
    folds = True

    def parameters(self, cfg):
        return {f"{side}_input_gain": Parameter((cfg.d_model,), ones) for side in ("q", "k")}

    def read(self, attention, x, side):
        return x * getattr(attention, f"{side}_input_gain")


ADDITION = InputGain()
