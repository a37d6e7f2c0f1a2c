"""Named random streams: two arms with one seed share every stream they both use."""

import hashlib


def named_seed(seed: int, name: str) -> int:
    """A 63-bit seed that depends on nothing but the run's seed and the stream's name."""
    digest = hashlib.sha256(f"{seed}/{name}".encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def named_generator(seed: int, name: str):
    """A CPU torch.Generator of its own for the stream `name`."""
    import torch

    return torch.Generator().manual_seed(named_seed(seed, name))
