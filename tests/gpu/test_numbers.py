"""Numbers on a GPU: every position and addition in every precision, kernels, memory."""

import pytest
import torch
from torch.profiler import ProfilerActivity, profile

from oelm_lib.model.cost import step_bytes
from oelm_lib.model.gpt import HAS_CHUNKED_LOSS
from tests.model.additions import EACH_AND_ALL, stirred

TOLERANCE = {"fp32": 2e-3, "bf16": 6e-2, "fp16": 1e-2}
"""Largest difference of a logit over the largest logit; fp32 products may use TF32."""
DTYPE = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
BIASED = ("alibi", "t5", "query_distance", "forget_gate", "all")
"""Additions that bias the scores, for which there is no flash kernel."""


@pytest.mark.parametrize("precision", TOLERANCE)
@pytest.mark.parametrize("name", ["plain", *EACH_AND_ALL])
def test_logits_are_those_of_float64_on_the_cpu(model_config, cuda, name, precision):
    cfg = model_config(**EACH_AND_ALL.get(name, {}))
    model = stirred(cfg)
    tokens = torch.arange(24).reshape(2, 12) % cfg.vocab_size
    expected = model.double()(tokens)[0]
    with torch.autocast("cuda", DTYPE[precision], enabled=precision != "fp32"):
        logits = model.float().to(cuda)(tokens.to(cuda))[0]
    error = (logits.double().cpu() - expected).abs().max() / expected.abs().max()
    assert error < TOLERANCE[precision]


@pytest.mark.parametrize("name", ["plain", *EACH_AND_ALL])
def test_attention_takes_a_fused_kernel(cuda, name):
    from oelm_lib.config import load_config
    from oelm_lib.model.gpt import GPT

    cfg = load_config("GPT-01").model
    cfg = cfg.model_copy(update=EACH_AND_ALL.get(name, {}) | {"num_layers": 1, "dropout": 0.0})
    model = GPT(cfg).to(cuda)
    tokens = torch.zeros(2, 128, dtype=torch.int64, device=cuda)
    with profile(activities=[ProfilerActivity.CPU]) as trace, torch.autocast("cuda"):
        model(tokens, tokens)[1].backward()
    names = {event.name for event in trace.events()}
    fused = {"aten::_scaled_dot_product_flash_attention"}
    fused |= {"aten::_scaled_dot_product_efficient_attention"}
    fused |= {"aten::_scaled_dot_product_cudnn_attention"}
    assert names & fused
    assert "aten::_scaled_dot_product_attention_math" not in names
    if name not in BIASED:
        assert "aten::_scaled_dot_product_efficient_attention" not in names


@pytest.mark.skipif(not HAS_CHUNKED_LOSS, reason="torch before 2.13 holds all logits")
def test_memory_is_within_a_tenth_of_the_cost_model(cuda):
    from oelm_lib.bench.steps import random_batch
    from oelm_lib.config import load_config
    from oelm_lib.model.gpt import GPT
    from oelm_lib.training.optim import backward, make_optimizer, update
    from oelm_lib.training.precision import Precision

    cfg = load_config("GPT-01", {"model.dropout": 0.0})
    model = GPT(cfg.model).to(cuda)
    optimizer, precision = make_optimizer(model, cfg.optim), Precision("fp32", cuda)
    batch = random_batch(cfg, cuda)
    for _ in range(2):
        torch.cuda.reset_peak_memory_stats(cuda)
        backward(model, precision, batch)
        update(optimizer, precision, [1e-4])
    predicted = step_bytes(cfg.model, cfg.train.batch_size)["peak"]
    assert torch.cuda.max_memory_allocated(cuda) == pytest.approx(predicted, rel=0.1)
