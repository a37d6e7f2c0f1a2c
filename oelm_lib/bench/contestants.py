"""The steps that a bench times: ours, a naive one and Hugging Face's, here or in a process of its own."""

import math
import multiprocessing
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from oelm_lib.config import Experiment, load_config
from oelm_lib.data.batches import Batches
from oelm_lib.errors import UserError
from oelm_lib.model.attention import CausalSelfAttention
from oelm_lib.model.gpt import GPT, Block
from oelm_lib.training.evaluation import BATCH_TOKENS
from oelm_lib.training.optim import (
    backward,
    clip_gradients,
    gradient_norm,
    make_optimizer,
    update,
)
from oelm_lib.training.precision import Precision

CPU = torch.device("cpu")
RATE = 1e-4


class NaiveAttention(CausalSelfAttention):
    """The log's design: all scores, a fresh mask, softmax, dropout."""

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (self._heads(proj(x)) for proj in (self.q_proj, self.k_proj, self.v_proj))
        scores = q @ k.transpose(-2, -1) / math.sqrt(q.shape[-1])
        mask = torch.triu(torch.ones(x.shape[1], x.shape[1]), 1).bool()
        weights = F.dropout(
            scores.masked_fill(mask, -math.inf).softmax(-1), self.dropout, self.training
        )
        return F.dropout(
            self.o_proj((weights @ v).transpose(1, 2).flatten(2)), self.dropout, self.training
        )


class NaiveBlock(Block):
    """The same block with torch's dropout."""

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attention(self.ln1(x))
        hidden = F.dropout(F.gelu(self.fc_in(self.ln2(x))), self.dropout, self.training)
        return x + F.dropout(self.fc_out(hidden), self.dropout, self.training)


def our_step(cfg: Experiment, batch: tuple[Tensor, Tensor]) -> Callable[[], None]:
    """One optimizer step as the training loop takes it."""
    model = GPT(cfg.model)
    optimizer, precision = make_optimizer(model, cfg.optim), Precision("fp32", CPU)

    def step() -> None:
        backward(model, precision, batch)
        norm = gradient_norm(optimizer, precision)
        clip_gradients(optimizer, cfg.optim.grad_clip, norm)
        update(optimizer, precision, [RATE])

    step.held = lambda: _held(model, optimizer)
    return step


def plain_step(model: nn.Module, loss: Callable[[], Tensor]) -> Callable[[], None]:
    """One step as most scripts take it."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=RATE)

    def step() -> None:
        loss().backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()

    step.held = lambda: _held(model, optimizer)
    return step


def _held(model: nn.Module, optimizer: torch.optim.Optimizer) -> int:
    """Bytes of weights and optimizer state, which live between steps."""
    moments = [value for state in optimizer.state.values() for value in state.values()]
    return sum(tensor.nbytes for tensor in [*model.parameters(), *moments])


def naive_step(cfg: Experiment, batch: tuple[Tensor, Tensor]) -> Callable[[], None]:
    """A step with the log's attention and all logits at once."""
    model = GPT(cfg.model)
    for block in model.blocks:
        block.__class__, block.attention.__class__ = NaiveBlock, NaiveAttention
    return plain_step(
        model, lambda: F.cross_entropy(model(batch[0])[0].flatten(0, 1), batch[1].flatten())
    )


def hf_step(cfg: Experiment, batch: tuple[Tensor, Tensor]) -> Callable[[], None]:
    """A step of Hugging Face's GPT-2 of the same sizes."""
    try:
        from transformers import GPT2Config, GPT2LMHeadModel, logging
    except ImportError:
        raise UserError("transformers is not installed; run: pip install -e '.[bench]'") from None
    logging.set_verbosity_error()  # it warns of its defaults' token ids in a smaller vocabulary
    m = cfg.model
    sizes = {
        "vocab_size": m.vocab_size,
        "n_positions": m.max_seq_len,
        "n_embd": m.d_model,
        "n_inner": m.d_ff,
    }
    drops = dict.fromkeys(("resid_pdrop", "embd_pdrop", "attn_pdrop"), m.dropout)
    model = GPT2LMHeadModel(
        GPT2Config(n_layer=m.num_layers, n_head=m.num_heads, use_cache=False, **sizes, **drops)
    )
    return plain_step(model.train(), lambda: model(input_ids=batch[0], labels=batch[0]).loss)


OTHERS = {"naive": naive_step, "hf_gpt2": hf_step}


def random_ids(cfg: Experiment) -> np.ndarray:
    """Token ids for at least two evaluation batches or training batches."""
    tokens = max(BATCH_TOKENS, cfg.train.batch_size * cfg.model.max_seq_len)
    return (
        np.random.default_rng(0)
        .integers(cfg.model.vocab_size, size=2 * tokens + 1)
        .astype(np.uint16)
    )


def random_batch(cfg: Experiment) -> tuple[Tensor, Tensor]:
    """Tokens and targets (B, T) of one step."""
    return Batches(random_ids(cfg), cfg.model.max_seq_len, cfg.train.batch_size, 0, CPU)(0)


def seconds_of(function: Callable, *args: Any, **kwargs: Any) -> float:
    """CPU seconds where torch has one thread, so that others on the machine do not count; else wall seconds."""
    clock = time.process_time if torch.get_num_threads() == 1 else time.perf_counter
    start = clock()
    function(*args, **kwargs)
    return clock() - start


def timed(step: Callable[[], Any]) -> Callable[[], float]:
    """The step as a function that returns the seconds it took."""
    return lambda: seconds_of(step)


def as_a_script(kind: str, cfg: Experiment, threads: int) -> Callable[[], float]:
    """A step, timed, of a process of its own, whose allocator is as glibc sets it: what a user's script gets.

    Args:
        kind: naive or hf_gpt2.
    """
    context = multiprocessing.get_context("spawn")
    mine, its = context.Pipe()
    process = context.Process(
        target=_serve, args=(kind, cfg.id, cfg.overrides, threads, its), daemon=True
    )
    process.start()

    def step() -> float:
        mine.send(True)
        return mine.recv()

    step.end = process.terminate
    return step


def _serve(kind: str, exp: str, overrides: dict[str, Any], threads: int, connection: Any) -> None:
    """Make a step and time it as often as the other end asks."""
    torch.set_num_threads(threads)
    cfg = load_config(exp, overrides)
    step = OTHERS[kind](cfg, random_batch(cfg))
    while connection.recv():
        connection.send(seconds_of(step))
