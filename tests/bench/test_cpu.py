import json
from statistics import median

import pytest

from oelm_lib.files import with_checksum

TINY = {
    "model.vocab_size": 64,
    "model.d_model": 16,
    "model.num_layers": 2,
    "model.num_heads": 2,
    "model.d_ff": 32,
    "model.max_seq_len": 16,
    "train.batch_size": 2,
}


@pytest.fixture
def experiment():
    from oelm_lib.config import load_config

    return load_config("GPT-01", TINY | {"model.dropout": 0.0, "train.precision": "fp32"})


@pytest.mark.slow
def test_bench_times_every_step_in_every_round_and_writes_the_result(tmp_path, monkeypatch):
    from oelm_lib.bench import cpu

    pytest.importorskip("transformers", reason="the extra `bench` is not installed")
    monkeypatch.setitem(cpu.SIZES, "study", ("GPT-01", "GPT-02", TINY))
    monkeypatch.setattr(cpu, "BATCH_TOKENS", 64)
    result = cpu.bench("study", 0.1, 5, tmp_path / "bench.json")
    assert json.loads((tmp_path / "bench.json").read_text()) == with_checksum(result)
    assert set(result["speed_up_over"]) == {"naive", "hf_gpt2", "naive_script", "hf_gpt2_script"}
    timings = [*result["seconds"].values(), *(row["seconds"] for row in result["growth"])]
    assert {len(seconds) for seconds in timings} == {5}
    assert min(min(seconds) for seconds in timings) > 0
    saved = result["peak_bytes"]["baseline"] - result["peak_bytes"]["oelm_freeze"]
    assert saved >= 2 * 2 * 16 * 16 * 4  # the gradients of two matrices in two layers


def test_too_few_rounds_are_refused(tmp_path):
    from oelm_lib.bench import cpu
    from oelm_lib.errors import UserError

    with pytest.raises(UserError, match="rounds = 2; at least 5"):
        cpu.bench("study", 0.0, 2, tmp_path / "bench.json")
    assert list(tmp_path.iterdir()) == []


def test_growth_halves_and_doubles_each_size(experiment):
    from oelm_lib.bench import cpu

    values = {}
    for row in cpu.growth(experiment, 2):
        values.setdefault(row["what"], []).append(row["value"])
        assert len(row["seconds"]) == 2 and min(row["seconds"]) > 0
        # Tiny tensors; the sizes in use are held to a tenth by the tests of the cost model.
        assert 0.5 < row["predicted_bytes"] / row["peak_bytes"] < 2
    assert values == {
        "d_model": [8, 16, 32],
        "num_layers": [1, 2, 4],
        "max_seq_len": [8, 16, 32],
        "vocab_size": [32, 64, 128],
        "batch_size": [1, 2, 4],
    }


def test_the_naive_step_computes_the_same_function(model_config):
    import torch

    from oelm_lib.bench import steps
    from oelm_lib.model.gpt import GPT
    from tests.model.test_gpt import batch

    cfg = model_config()
    model, (tokens, _) = GPT(cfg), batch(cfg)
    expected = model(tokens)[0]
    for block in model.blocks:
        block.__class__, block.attention.__class__ = steps.NaiveBlock, steps.NaiveAttention
    assert torch.allclose(model(tokens)[0], expected, rtol=1e-5, atol=1e-5)


def test_peak_counts_what_is_allocated_at_one_time(capfd):
    import torch

    from oelm_lib.bench.timing import peak_bytes

    def step():
        a = torch.ones(1000)
        b = a + 1
        del a
        return b + torch.ones(1000)

    assert 12000 <= peak_bytes(step) <= 12500
    assert capfd.readouterr() == ("", "")  # the profiler's own lines are kept out


def test_a_ratio_states_its_standard_error():
    import numpy as np

    from oelm_lib.bench.timing import ratio

    exact = {"ratio": 2.0, "standard_error": 0.0}
    assert ratio([2.0] * 5, [1.0] * 5) == exact
    ratios = np.random.default_rng(1).normal(1.0, 0.1, 400)
    measured = ratio(ratios, np.ones(400))
    expected = 1.2533 * 0.1 / 20  # standard error of the median of normal draws
    assert measured["standard_error"] == pytest.approx(expected, rel=0.3)
    ratios[0] = 100.0
    assert ratio(ratios, np.ones(400))["ratio"] == pytest.approx(measured["ratio"], abs=1e-3)


def test_rounds_alternate_in_order_and_reversed():
    from oelm_lib.bench.timing import alternate

    order = []
    steps = {name: lambda name=name: order.append(name) or len(order) for name in "abc"}
    seconds = alternate(steps, 2)
    assert "".join(order) == "abccbaabc"
    assert seconds == {"a": [6, 7], "b": [5, 8], "c": [4, 9]}
    assert median(seconds["a"]) == 6.5


def test_a_script_step_runs_in_its_own_process(experiment):
    from oelm_lib.bench.steps import ScriptStep, naive_step, random_batch
    from oelm_lib.bench.timing import alternate, timed

    script = ScriptStep("naive", experiment, 1)
    here = timed(naive_step(experiment, random_batch(experiment)))
    seconds = alternate({"script": script, "here": here}, 2)
    script.close()
    assert {name: len(values) for name, values in seconds.items()} == {"script": 2, "here": 2}
    assert all(value > 0 for values in seconds.values() for value in values)
