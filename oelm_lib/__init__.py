"""Train, compare and report GPTs whose query and key projections stay at their random start.

`import oelm_lib as oelm; oelm.load_config("GPT-02")`; the packages list what they offer in
`__all__`.
"""

from oelm_lib.lazy import lazy_names

__getattr__, __dir__, __all__ = lazy_names(__name__, {"load_config": "config"})
