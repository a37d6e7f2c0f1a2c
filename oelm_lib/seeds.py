"""Named random streams: two arms with the same seed share every stream that both use.

Dropout draws from torch's default generator. On a CPU in fp32 all arms of one size draw the same.
Under bf16, fp16, compilation or CUDA they draw the same only if all of them, or none, bias the
scores (`position: t5 | alibi`, `query_distance`, `forget_gate`): the kernels draw differently.
"""

import hashlib


def named_seed(seed: int, name: str) -> int:
    """Return a 63-bit seed that depends on the run's seed and the stream's name alone."""
    digest = hashlib.sha256(f"{seed}/{name}".encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def named_generator(seed: int, name: str):
    """Return a new CPU `torch.Generator` for the stream `name`."""
    import torch

    return torch.Generator().manual_seed(named_seed(seed, name))
