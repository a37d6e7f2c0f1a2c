"""Fixtures that every part uses. oelm_lib.model must be imported inside functions: jaxtyping's hook comes first."""

import pytest

TINY_MODEL = {
    "vocab_size": 61,
    "d_model": 16,
    "num_layers": 2,
    "num_heads": 2,
    "d_ff": 32,
    "max_seq_len": 12,
    "dropout": 0.0,
    "qk_init": "normal",
    "qk_scale": 0.45254834,
    "freeze_q": False,
    "freeze_k": False,
    "frozen_layers": "all",
}
FROZEN = {"freeze_q": True, "freeze_k": True}
ARMS = {
    "baseline": {},
    "oelm_freeze": FROZEN | {"qk_init": "orthogonal", "qk_scale": 1.0},
    "oelm_random": FROZEN,
    "frozen_gaussian": FROZEN | {"qk_scale": 1.0},
}


@pytest.fixture
def model_config():
    """A function from changes to a tiny ModelConfig."""
    from oelm_lib.config import ModelConfig

    return lambda **changes: ModelConfig(**TINY_MODEL | changes)


@pytest.fixture(params=ARMS)
def arm_config(request, model_config):
    """Each arm as a tiny ModelConfig."""
    return model_config(**ARMS[request.param])
