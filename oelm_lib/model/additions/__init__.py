"""What may be added to attention, in the order in which it acts: the order of ModelConfig's keys.

A key of ModelConfig that has a file of its name in this folder is an addition; so is each value of
the key `position` but `learned`.
"""

import importlib
import pkgutil
from collections.abc import Iterator
from typing import get_args

from oelm_lib.config import ModelConfig
from oelm_lib.model.additions.base import Addition


def _registered() -> Iterator[Addition]:
    files = {module.name for module in pkgutil.iter_modules(__path__)}
    for key, field in ModelConfig.model_fields.items():
        for name in (key, *get_args(field.annotation)):
            if name in files:
                module = importlib.import_module(f"{__name__}.{name}")
                addition = module.ADDITION
                addition.name = name
                yield addition


ADDITIONS = tuple(_registered())


def active(cfg: ModelConfig) -> list[Addition]:
    """Return the additions that a config has, in the order in which they act."""
    return [addition for addition in ADDITIONS if addition.is_on(cfg)]


def unfolded(cfg: ModelConfig) -> list[str]:
    """Return the names of a config's additions that W_q, W_k and their biases cannot express.

    Export to other architectures refuses them; an addition that declares nothing is among them.
    """
    return [addition.name for addition in active(cfg) if not addition.folds]


def biases_scores(cfg: ModelConfig) -> bool:
    """Return whether an addition of a config biases the scores.

    Outside fp32 on a CPU, kernels draw dropout otherwise for such arms: see `oelm_lib.seeds`.
    """
    return any(type(addition).score is not Addition.score for addition in active(cfg))


def added_parameters(cfg: ModelConfig) -> int:
    """Return the number of scalars that a config's additions have in a layer."""
    return sum(
        parameter.count
        for addition in active(cfg)
        for parameter in addition.parameters(cfg).values()
    )
