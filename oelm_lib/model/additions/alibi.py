"""A fixed penalty of the scores by distance, in place of learned position embeddings.

Formula: scores - slope_h * distance, slope_h = 2^(-8 (h + 1) / H) for h = 0, 1, ...
Parameters per layer: 0.
Source: Press et al. 2021, arXiv:2108.12409.
"""

from oelm_lib.model.additions.base import Addition


class Alibi(Addition):
    def table(self, cfg, distance):
        return -slopes(cfg.num_heads, distance.device).view(1, -1, 1, 1) * distance

    def score(self, attention, q, positions, remembered):
        return positions.tables[self.name]


def slopes(num_heads, device=None):
    """Return the slope of each head, (H,)."""
    from torch import arange

    return 2.0 ** (-8.0 * arange(1, num_heads + 1, device=device) / num_heads)


ADDITION = Alibi()
