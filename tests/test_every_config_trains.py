"""Every config that the schema accepts trains and is evaluated, or is refused with its reason."""

from typing import get_args

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from oelm_lib import config
from oelm_lib.errors import UserError
from tests.conftest import TINY_RUN

SMALL = {
    "d_model": (8, 16),
    "num_layers": (1, 2),
    "num_heads": (1, 2, 4),
    "d_ff": (1, 16),
    "max_seq_len": (2, 3, 16),
    "dropout": (0.0, 0.1, 0.99),
    "qk_scale": (1e-6, 0.5, 1.0, 100.0),
    "frozen_layers": ("all", (0,), ()),
    "freeze_from": (0, 0, 1),
    "freeze_until": (None, None, 2),
    "qk_tied": (False, False, False, True),
}
REST = {
    "optim.learning_rate": st.sampled_from([1e-12, 1e-3, 1.0]),
    "optim.min_learning_rate": st.sampled_from([0.0, 1e-13]),
    "optim.warmup_steps": st.sampled_from([0, 1, 10]),
    "optim.weight_decay": st.sampled_from([0.0, 0.1, 10.0]),
    "optim.betas": st.sampled_from([(0.9, 0.999), (0.0, 0.0)]),
    "optim.grad_clip": st.sampled_from([1e-6, 1.0]),
    "train.max_steps": st.sampled_from([1, 2]),
    "train.batch_size": st.sampled_from([1, 3]),
    "train.precision": st.sampled_from(["fp32", "bf16", "auto"]),
    "train.eval_interval": st.sampled_from([1, 2, 5]),
    "train.eval_tokens": st.sampled_from([1, 64]),
    "train.save_interval": st.sampled_from([1, 5]),
}


def values(name: str) -> st.SearchStrategy:
    """Return a strategy of small values of a key of `model`, off more often than not."""
    field = config.ModelConfig.model_fields[name]
    if name in SMALL:
        return st.sampled_from(SMALL[name])
    if field.annotation is bool:
        return st.sampled_from([False, False, True])
    if get_args(field.annotation):
        return st.sampled_from([*get_args(field.annotation)])
    return st.sampled_from([0, 0, 1])


MODEL = {
    f"model.{name}": values(name)
    for name in config.ModelConfig.model_fields
    if name != "vocab_size"
}


@settings(
    max_examples=10,
    derandomize=True,
    phases=[Phase.generate],  # shrinking would train for minutes
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(overrides=st.fixed_dictionaries(MODEL | REST))
def test_every_accepted_config_trains_or_is_refused(overrides, stories, tmp_path_factory):
    from oelm_lib import runs, training

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OELM_DATA", str(stories))
        try:
            cfg = config.load_config("DEMO-02", TINY_RUN | overrides)
        except UserError as error:
            assert any(key.partition(".")[2] in str(error) for key in overrides)
            return
        folder = tmp_path_factory.mktemp("outputs")
        run = runs.open_run(cfg, 1, folder)
        training.train(run)
    assert runs.read_summary(run)["final_val_loss"] > 0
