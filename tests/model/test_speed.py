"""Each fast path against the plain one, and what torch.compile makes of the model."""

import json
import subprocess
import sys

import pytest
import torch
from torch.nn import functional as F  # noqa: N812

from oelm_lib.data.batches import IGNORED
from tests.conftest import ARMS, TINY_MODEL
from tests.model.additions import ALL
from tests.model.test_attention import operations_of_a_step
from tests.model.test_gpt import batch

RELATIVE = 1e-5  # float32 rounding


def close(actual, expected):
    assert (actual - expected).abs().max() <= RELATIVE * expected.abs().max()


@pytest.mark.parametrize("chunk", [5, 12, 1000])
def test_the_chunked_loss_equals_all_logits_at_once(model_config, monkeypatch, chunk):
    from oelm_lib.model import gpt

    monkeypatch.setattr(gpt, "CHUNK", chunk)
    monkeypatch.setattr(gpt, "FEW_LOGITS", 0)
    cfg = model_config()
    model, (tokens, targets) = gpt.GPT(cfg), batch(cfg)
    targets = targets.clone()
    targets[0, 4:] = IGNORED
    parameters = list(model.parameters())
    loss = model(tokens, targets)[1]
    plain = F.cross_entropy(model(tokens)[0].flatten(0, 1), targets.flatten(), ignore_index=IGNORED)
    close(loss, plain)
    for mine, other in zip(
        torch.autograd.grad(loss, parameters), torch.autograd.grad(plain, parameters), strict=True
    ):
        close(mine, other)


@pytest.mark.parametrize("vocab_size", [61, 64, 65])
@pytest.mark.parametrize("half", [False, True])
def test_the_loss_of_padded_logits_is_that_of_plain_ones(vocab_size, half):
    from oelm_lib.model.gpt import padded_logits

    generator = torch.Generator().manual_seed(0)
    x = torch.randn(20, 8, generator=generator, requires_grad=True)
    head = torch.randn(vocab_size, 8, generator=generator, requires_grad=True)
    targets = torch.randint(vocab_size, (20,), generator=generator)
    results = []
    for make in (padded_logits, F.linear):
        with torch.autocast("cpu", torch.bfloat16, enabled=half):
            logits = make(x, head)
        loss = F.cross_entropy(logits.float(), targets)
        results.append([loss, *torch.autograd.grad(loss, [x, head])])
    tolerance = 0.02 if half else RELATIVE  # bf16 keeps 8 bits
    for padded, plain in zip(*results, strict=True):
        torch.testing.assert_close(padded, plain, rtol=tolerance, atol=tolerance)
    assert padded_logits(x, head).shape[1] % 64 == 0


@pytest.mark.parametrize("p", [0.1, 0.5, 0.9])
def test_dropout_keeps_the_mean_and_draws_from_the_default_generator_only(p):
    from oelm_lib.model import dropout

    x = torch.ones(400, 1001)
    torch.manual_seed(1)
    first = dropout.dropout(x, p, training=True)
    state = torch.get_rng_state()
    torch.manual_seed(1)
    assert torch.equal(first, dropout.dropout(x, p, training=True))
    assert torch.equal(torch.get_rng_state(), state)
    assert first.unique().tolist() == pytest.approx([0, 1 / (1 - p)], rel=1e-3)
    spread = (p * (1 - p) / x.numel()) ** 0.5
    assert abs((first == 0).float().mean().item() - p) < 5 * spread + 1 / dropout.LEVELS
    # Neighbours are independent: no pair of columns of a 64-bit draw is dropped together too often.
    both = ((first[:, :-1] == 0) & (first[:, 1:] == 0)).float().mean().item()
    assert both == pytest.approx(p * p, abs=6 * p * (1 - p * p) ** 0.5 / x.numel() ** 0.5 + 1e-4)
    assert torch.equal(dropout.dropout(x, p, training=False), x)


POSITIONS = [ALL | {"position": name} for name in ("rope", "alibi", "t5")]
FREEZE = ARMS["oelm_freeze"]
COMPILED_ARMS = [ARMS["baseline"], FREEZE, *(FREEZE | added for added in POSITIONS)]
"""The other frozen arms have the operations of oelm_freeze: see the test below."""
COMPILED = """
import json, sys, torch
from torch._dynamo.utils import counters
from oelm_lib.config import ModelConfig
from oelm_lib.model import gpt
gpt.FEW_LOGITS = 0  # the chunked loss
for line in sys.argv[2:]:
    torch._dynamo.reset()
    counters.clear()
    cfg = ModelConfig(**json.loads(line))
    model = gpt.GPT(cfg)
    compiled, losses = torch.compile(model, fullgraph=True, backend=sys.argv[1]), []
    for seed in range(3):
        generator = torch.Generator().manual_seed(seed)
        ids = torch.randint(cfg.vocab_size, (3, cfg.max_seq_len + 1), generator=generator)
        loss = compiled(ids[:, :-1], ids[:, 1:])[1]
        loss.backward()
        losses.append([loss.item(), model(ids[:, :-1], ids[:, 1:])[1].item()])
        with torch.no_grad():
            for parameter in model.parameters():
                if parameter.requires_grad:
                    parameter -= 0.1 * parameter.grad
                    parameter.grad = None
    breaks = sum(counters["graph_break"].values())
    print(json.dumps([losses, counters["stats"]["unique_graphs"], breaks]))
"""


@pytest.mark.parametrize("dropout", [0.0, 0.1])
@pytest.mark.parametrize("name", [name for name, arm in ARMS.items() if arm not in COMPILED_ARMS])
def test_frozen_arms_take_the_same_operations(model_config, name, dropout):
    operations, expected = (
        operations_of_a_step(model_config(**arm, dropout=dropout)) for arm in (ARMS[name], FREEZE)
    )
    assert operations == expected


@pytest.mark.slow
def test_compiles_whole_and_once_on_every_arm():
    """In a process without jaxtyping's hook; aot_eager traces as inductor does, in seconds."""
    arms = [arm | {"dropout": dropout} for dropout in (0.0, 0.1) for arm in COMPILED_ARMS]
    configs = [json.dumps(TINY_MODEL | arm) for arm in arms]
    done = subprocess.run(
        [sys.executable, "-c", COMPILED, "aot_eager", *configs],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    found = [json.loads(line) for line in done.stdout.splitlines()[-len(configs) :]]
    assert [(graphs, breaks) for _, graphs, breaks in found] == [(1, 0)] * len(configs)
    for losses, _, _ in found[: len(COMPILED_ARMS)]:  # dropout draws anew in each of two passes
        assert all(mine == pytest.approx(plain, rel=RELATIVE) for mine, plain in losses)
