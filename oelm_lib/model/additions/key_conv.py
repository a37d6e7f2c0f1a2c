"""A trained causal convolution of the keys over three positions, with a filter per dimension.

Formula: k_i <- w_0 k_{i-2} + w_1 k_{i-1} + w_2 k_i, w = (0, 0, 1) at the start.
Parameters per layer: 3 D.
Source: Primer, So et al. 2021, arXiv:2109.08668.
"""

from oelm_lib.model.additions.base import Addition, Parameter, earlier

WIDTH = 3


class KeyConvolution(Addition):
    def parameters(self, cfg):
        return {"key_conv": Parameter((cfg.d_model, WIDTH), _start_at_present)}

    def transform(self, attention, q, k, positions):
        taps = attention.key_conv.view(k.shape[1], 1, k.shape[3], WIDTH).unbind(-1)  # (H, 1, K)
        return q, sum(earlier(k, WIDTH - 1 - n) * tap for n, tap in enumerate(taps))


def _start_at_present(weight, generator):
    weight.zero_()
    weight[:, -1] = 1.0


ADDITION = KeyConvolution()
