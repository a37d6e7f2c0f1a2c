"""Speed of the training step against other implementations and the machine's limit.

Each name is imported when it is first used; only the measurements need torch.
"""

from oelm_lib.lazy import lazy_names

__getattr__, __dir__, __all__ = lazy_names(
    __name__,
    {
        "bench": "cpu",
        "bench_gpu": "gpu",
    },
)
