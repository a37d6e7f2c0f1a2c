"""Each head's query and key is divided by its root mean square.

Formula: q_h / rms(q_h), k_h / rms(k_h).
Parameters per layer: 0.
Source: Henry et al. 2020, arXiv:2010.04245.
"""

from oelm_lib.model.additions.base import Addition


class Norm(Addition):
    def transform(self, attention, q, k, positions):
        from torch.nn.functional import rms_norm

        return rms_norm(q, q.shape[-1:]), rms_norm(k, k.shape[-1:])


ADDITION = Norm()
