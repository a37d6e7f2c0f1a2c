import json

import pytest

TINY = {
    "model.vocab_size": 64,
    "model.d_model": 16,
    "model.num_layers": 2,
    "model.num_heads": 2,
    "model.d_ff": 32,
    "model.max_seq_len": 16,
    "train.batch_size": 2,
}


@pytest.mark.slow
def test_the_bench_measures_all_and_writes_its_result(tmp_path, monkeypatch):
    from oelm_lib.bench import measure

    pytest.importorskip("transformers", reason="the extra `bench` is not installed")
    monkeypatch.setitem(measure.SIZES, "study", ("GPT-01", "GPT-02", TINY))
    monkeypatch.setattr(measure, "BATCH_TOKENS", 64)
    result = measure.bench("study", 0.1, 3, tmp_path / "bench")
    assert json.loads((tmp_path / "bench.json").read_text()) == result
    assert set(result["speed_up_over"]) == {"naive", "hf_gpt2", "naive_script", "hf_gpt2_script"}
    for kind, count in (("close", 3), ("apart", 1)):
        assert all(
            len(seconds) == count and min(seconds) > 0
            for seconds in result["seconds"][kind].values()
        )
    assert (
        result["peak_bytes"]["baseline"] - result["peak_bytes"]["oelm_freeze"]
        >= 2 * 2 * 16 * 16 * 4
    )
    assert result["growth"] == []


def test_growth_halves_and_doubles_each_size():
    from oelm_lib.bench import measure
    from oelm_lib.config import load_config

    rows = measure.growth(
        load_config("GPT-01", TINY | {"model.dropout": 0.0, "train.precision": "fp32"}), 1
    )
    values = {}
    for row in rows:
        values.setdefault(row["what"], []).append(row["value"])
        assert row["seconds"] > 0
        assert (
            0.5 < row["predicted_bytes"] / row["peak_bytes"] < 2
        )  # tiny tensors; sizes in use: test_cost
    assert values == {
        "d_model": [8, 16, 32],
        "num_layers": [1, 2, 4],
        "max_seq_len": [8, 16, 32],
        "vocab_size": [32, 64, 128],
        "batch_size": [1, 2, 4],
    }


def test_the_naive_reference_is_the_same_function(model_config):
    import torch

    from oelm_lib.bench import contestants
    from oelm_lib.model.gpt import GPT
    from tests.model.test_gpt import batch

    cfg = model_config()
    model, (tokens, _) = GPT(cfg), batch(cfg)
    expected = model(tokens)[0]
    for block in model.blocks:
        block.__class__, block.attention.__class__ = (
            contestants.NaiveBlock,
            contestants.NaiveAttention,
        )
    assert torch.allclose(model(tokens)[0], expected, rtol=1e-5, atol=1e-5)


def test_peak_counts_what_lives_at_once():
    import torch

    from oelm_lib.bench.measure import peak_bytes

    def step():
        a = torch.ones(1000)
        b = a + 1
        del a
        return b + torch.ones(1000)

    assert 12000 <= peak_bytes(step) <= 12500


def test_ratios_carry_their_standard_error():
    import numpy as np

    from oelm_lib.bench.measure import speed_up

    assert speed_up([2.0, 2.0, 2.0], [1.0, 1.0, 1.0]) == {"ratio": 2.0, "standard_error": 0.0}
    ratios = np.random.default_rng(1).normal(1.0, 0.1, 400)
    found = speed_up(ratios, np.ones(400))
    assert found["standard_error"] == pytest.approx(
        1.2533 * 0.1 / 20, rel=0.3
    )  # of the median of normal draws
    ratios[0] = 100.0
    assert speed_up(ratios, np.ones(400))["ratio"] == pytest.approx(found["ratio"], abs=1e-3)


def test_a_step_runs_in_a_process_of_its_own():
    from oelm_lib.bench.contestants import as_a_script, naive_step, random_batch, timed
    from oelm_lib.bench.measure import alternate
    from oelm_lib.config import load_config

    cfg = load_config("GPT-01", TINY | {"model.dropout": 0.0, "train.precision": "fp32"})
    step = as_a_script("naive", cfg, 1)
    seconds = alternate({"script": step, "here": timed(naive_step(cfg, random_batch(cfg)))}, 2)
    step.end()
    assert {name: len(values) for name, values in seconds.items()} == {"script": 2, "here": 2}
    assert all(value > 0 for values in seconds.values() for value in values)
