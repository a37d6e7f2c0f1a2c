"""A gate of each head by which earlier positions fade, from the content in between.

Formula: scores_ij + sum_{l = j+1 .. i} log sigmoid(w_h . x_l + b_h).
Parameters per layer: (D + 1) H.
Source: FoX, Lin et al. 2025, arXiv:2503.02130.

w starts Gaussian. b starts where the gates without content are ALiBi's slopes; in the source, at 0.
"""

from oelm_lib.model.additions.alibi import slopes
from oelm_lib.model.additions.base import Addition, Parameter, Product, gaussian

DEVIATION = 0.02


class ForgetGate(Addition):
    def parameters(self, cfg):
        return {
            "forget_gate": Parameter((cfg.num_heads, cfg.d_model), gaussian(DEVIATION)),
            "forget_bias": Parameter((cfg.num_heads,), _start_as_alibi),
        }

    def products(self, cfg, batch_size):
        return [Product(1, batch_size * cfg.max_seq_len, cfg.d_model, cfg.num_heads)]

    def remember(self, attention, x):
        from torch.nn.functional import logsigmoid

        gate = (x @ attention.forget_gate.T).float() + attention.forget_bias  # (B, T, H)
        return logsigmoid(gate).mT.unsqueeze(-1)

    def score(self, attention, q, positions, remembered):
        total = remembered.cumsum(2)  # (B, H, S, 1)
        return total[:, :, positions.first :] - total.mT


def _start_as_alibi(weight, generator):
    weight.copy_(-slopes(len(weight)).expm1().log())  # log sigmoid(b) = -slope


ADDITION = ForgetGate()
