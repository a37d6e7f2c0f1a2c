"""The experiment files: complete, with every change declared, and equal to the log."""

import pytest

from oelm_lib import config
from tests.project_params import IDS

LOG = {
    "GPT-01": ("tinystories-phase3", 100_000, 3e-4, "normal", 0.45254834, False),
    "GPT-02": ("tinystories-phase3", 100_000, 1e-3, "orthogonal", 1.0, True),
    "GPT-03": ("tinystories-phase3", 100_000, 1e-3, "normal", 0.45254834, True),
    "GPT-04": ("openwebtext-phase3", 150_000, 3e-4, "normal", 0.45254834, False),
    "GPT-05": ("openwebtext-phase3", 150_000, 1e-3, "orthogonal", 1.0, True),
    "GPT-06": ("wikitext103-phase3", 200_000, 3e-4, "normal", 0.45254834, False),
    "GPT-07": ("wikitext103-phase3", 200_000, 1e-3, "orthogonal", 1.0, True),
}


@pytest.mark.parametrize("exp", IDS)
def test_changes_lists_exactly_what_differs_from_compare_to(exp):
    assert config.change_problems(config.load_config(exp)) == []


@pytest.mark.parametrize("exp", IDS)
def test_every_key_without_a_default_is_written_and_no_key_that_is_off(exp):
    written = config.read_yaml(config.experiment_path(exp))
    for section in ("model", "data", "optim", "train"):
        fields = config.Experiment.model_fields[section].annotation.model_fields
        required = {name for name, field in fields.items() if field.is_required()}
        assert required <= set(written[section])
        for name in set(written[section]) - required:
            assert written[section][name] != fields[name].default, name
    # Small models are fastest on one thread, and such a run is bit-equal on any machine.
    assert written.get("machine") == (None if exp.startswith("GPT") else {"threads": 1})


@pytest.mark.parametrize("exp", LOG)
def test_the_seven_experiments_are_those_of_the_log(exp):
    corpus, steps, rate, init, scale, frozen = LOG[exp]
    cfg = config.load_config(exp)
    assert cfg.data == config.DataConfig(corpus=corpus, tokenizer="gpt2")
    assert cfg.model == config.ModelConfig(
        vocab_size=50257,
        d_model=512,
        num_layers=6,
        num_heads=8,
        d_ff=2048,
        max_seq_len=512,
        dropout=0.1,
        qk_init=init,
        qk_scale=scale,
        freeze_q=frozen,
        freeze_k=frozen,
    )
    assert cfg.optim == config.OptimConfig(
        learning_rate=rate,
        min_learning_rate=0,
        warmup_steps=1000,
        weight_decay=0.01,
        betas=(0.9, 0.999),
        grad_clip=1,
    )
    train = cfg.train
    assert (train.max_steps, train.batch_size, train.precision) == (steps, 8, "fp16")
    assert (train.eval_interval, train.save_interval) == (1000, 5000)


def test_the_defaults_add_nothing():
    off = (False, 0, None, "learned", "all")
    fields = config.ModelConfig.model_fields.values()
    assert all(field.default in off for field in fields if not field.is_required())


@pytest.mark.parametrize("family", ["DEMO", "CPU"])
def test_the_arms_of_a_small_study_share_one_learning_rate(family):
    arms = [config.load_config(exp) for exp in IDS if exp.startswith(family)]
    assert len({arm.optim.learning_rate for arm in arms}) == 1
