"""The experiment files: complete, honest about what they change, and to the letter of the log."""

import pytest
import yaml

from oelm_lib import config

IDS = config.experiment_ids()
LOG = {
    "GPT-01": ("tinystories-phase3", 100_000, 3e-4, "normal", 0.45254834, False),
    "GPT-02": ("tinystories-phase3", 100_000, 1e-3, "orthogonal", 1.0, True),
    "GPT-03": ("tinystories-phase3", 100_000, 1e-3, "normal", 0.45254834, True),
    "GPT-04": ("openwebtext-phase3", 150_000, 3e-4, "normal", 0.45254834, False),
    "GPT-05": ("openwebtext-phase3", 150_000, 1e-3, "orthogonal", 1.0, True),
    "GPT-06": ("wikitext103-phase3", 200_000, 3e-4, "normal", 0.45254834, False),
    "GPT-07": ("wikitext103-phase3", 200_000, 1e-3, "orthogonal", 1.0, True),
}

LOG_MODEL = (
    "vocab_size d_model num_layers num_heads d_ff max_seq_len dropout qk_init qk_scale freeze_q freeze_k frozen_layers"
).split()


@pytest.mark.parametrize("exp", IDS)
def test_changes_lists_exactly_what_differs_from_compare_to(exp):
    cfg = config.load_config(exp)
    differing = (
        config.diff_configs(cfg, config.load_config(cfg.compare_to)) if cfg.compare_to else {}
    )
    assert set(cfg.changes) == set(differing)
    assert len(cfg.changes) == len(differing)


@pytest.mark.parametrize("exp", IDS)
def test_every_scientific_value_is_written_in_the_file(exp):
    written = yaml.safe_load(config.experiment_path(exp).read_text())
    for section in ("model", "data", "optim", "train"):
        fields = config.Experiment.model_fields[section].annotation.model_fields
        assert set(written[section]) == set(fields)
    # Small models are fastest on one thread, and so such a run is bit-equal wherever it is started.
    assert written.get("machine") == (
        {"threads": 1} if exp.startswith(("DEMO", "CPU", "MQAR")) else None
    )


@pytest.mark.parametrize("exp", LOG)
def test_the_seven_experiments_are_those_of_the_log(exp):
    cfg = config.load_config(exp)
    corpus, steps, rate, init, scale, frozen = LOG[exp]
    assert (cfg.data.corpus, cfg.data.tokenizer) == (corpus, "gpt2")
    assert (cfg.train.max_steps, cfg.optim.learning_rate) == (steps, rate)
    assert (cfg.model.qk_init, cfg.model.qk_scale) == (init, scale)
    assert (cfg.model.freeze_q, cfg.model.freeze_k) == (frozen, frozen)
    assert cfg.optim == config.OptimConfig(
        learning_rate=rate,
        min_learning_rate=0,
        warmup_steps=1000,
        weight_decay=0.01,
        betas=(0.9, 0.999),
        grad_clip=1,
        groups=(),
    )
    for name, value in cfg.model:
        if name not in LOG_MODEL:
            assert value in (0, None, False, "learned"), f"{name} is no part of the log's recipe"
    assert (
        cfg.train.batch_size,
        cfg.train.precision,
        cfg.train.eval_interval,
        cfg.train.save_interval,
    ) == (
        8,
        "fp16",
        1000,
        5000,
    )
    sizes = ("vocab_size", "d_model", "num_layers", "num_heads", "d_ff", "max_seq_len", "dropout")
    assert [getattr(cfg.model, name) for name in sizes] == [50257, 512, 6, 8, 2048, 512, 0.1]


@pytest.mark.parametrize("family", ["DEMO", "CPU"])
def test_the_arms_of_a_small_study_share_one_learning_rate(family):
    assert (
        len({config.load_config(exp).optim.learning_rate for exp in IDS if exp.startswith(family)})
        == 1
    )
