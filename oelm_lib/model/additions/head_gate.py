"""A gate of each head's output, from the first n dimensions of the input.

Formula: y_h <- 2 sigmoid(w_h . x[:n]) y_h, w = 0 at the start.
Parameters per layer: n H.
Source: Qiu et al. 2025, arXiv:2505.06708, on few dimensions.

A frozen head cannot learn to attend to nothing; the gate can switch it off.
"""

from oelm_lib.model.additions.base import Addition, Parameter, Product, zeros


class HeadGate(Addition):
    def parameters(self, cfg):
        return {"head_gate": Parameter((cfg.num_heads, cfg.head_gate), zeros)}

    def products(self, cfg, batch_size):
        return [Product(1, batch_size * cfg.max_seq_len, cfg.head_gate, cfg.num_heads)]

    def output(self, attention, x, y):
        gate = x[..., : attention.cfg.head_gate] @ attention.head_gate.T  # (B, T, H)
        return 2 * gate.sigmoid().mT.unsqueeze(-1) * y


ADDITION = HeadGate()
