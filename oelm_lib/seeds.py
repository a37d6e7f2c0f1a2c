"""Named random streams: two arms with one seed share every stream that both use.

Dropout draws from torch's default generator. On a CPU in fp32 its draws are the same in all arms of
one size. Under bf16, fp16, compilation or CUDA they are the same only among arms that all have, or
all lack, a bias of the scores (`position: t5 | alibi`, `query_distance`, `forget_gate`): the kernels
draw differently.
"""

import hashlib


def named_seed(seed: int, name: str) -> int:
    """Return a 63-bit seed that depends on the run's seed and the stream's name only."""
    digest = hashlib.sha256(f"{seed}/{name}".encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def named_generator(seed: int, name: str):
    """Return a CPU torch.Generator for the stream `name`."""
    import torch

    return torch.Generator().manual_seed(named_seed(seed, name))
