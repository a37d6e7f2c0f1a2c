"""Training steps to time, on any device: the workbook's, naive attention, Hugging Face's GPT-2."""

import math
import multiprocessing
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from oelm_lib.bench.timing import seconds_of
from oelm_lib.config import Experiment, load_config
from oelm_lib.data.batches import Batches
from oelm_lib.errors import UserError
from oelm_lib.model.attention import CausalSelfAttention
from oelm_lib.model.gpt import GPT, Block
from oelm_lib.training import compiler
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
Batch = tuple[Tensor, Tensor]


@dataclass
class Step:
    """One optimizer step of a model on one batch, as a callable."""

    run: Callable[[], None]
    model: nn.Module
    optimizer: torch.optim.Optimizer

    def __call__(self) -> None:
        self.run()

    def held_bytes(self) -> int:
        """Return the bytes that live between steps: weights and optimizer state."""
        moments = [value for state in self.optimizer.state.values() for value in state.values()]
        return sum(tensor.nbytes for tensor in [*self.model.parameters(), *moments])


class NaiveAttention(CausalSelfAttention):
    """Attention as in the log's code: all scores, a new mask, softmax, dropout."""

    def forward(self, x: Tensor, *_: None) -> Tensor:
        q, k, v = (self.split_heads(proj(x)) for proj in (self.q_proj, self.k_proj, self.v_proj))
        scores = q @ k.transpose(-2, -1) / math.sqrt(q.shape[-1])  # (B, H, T, T)
        mask = torch.triu(torch.ones(x.shape[1], x.shape[1], device=x.device), 1).bool()
        weights = scores.masked_fill(mask, -math.inf).softmax(-1)
        weights = F.dropout(weights, self.dropout, self.training)
        mixed = (weights @ v).transpose(1, 2).flatten(2)  # (B, T, D)
        return F.dropout(self.o_proj(mixed), self.dropout, self.training)


class NaiveBlock(Block):
    """The workbook's block with torch's dropout."""

    def forward(self, x: Tensor, *_: None) -> Tensor:
        x = x + self.attention(self.ln1(x))
        hidden = F.dropout(F.gelu(self.fc_in(self.ln2(x))), self.dropout, self.training)
        return x + F.dropout(self.fc_out(hidden), self.dropout, self.training)


def workbook_step(cfg: Experiment, batch: Batch, mode: str | None = None) -> Step:
    """Make the step that the training loop takes, in cfg's precision on the batch's device.

    Args:
        mode: As torch.compile takes it; None: not compiled.
    """
    device = batch[0].device
    model = GPT(cfg.model).to(device)
    optimizer, precision = make_optimizer(model, cfg.optim), Precision(cfg.train.precision, device)
    forward = _compiled(model, mode)

    def run() -> None:
        compiler.start_step(device)
        backward(forward, precision, batch)
        norm = gradient_norm(optimizer, precision)
        clip_gradients(optimizer, cfg.optim.grad_clip, norm)
        update(optimizer, precision, [RATE])

    return Step(run, model, optimizer)


def _plain_step(
    model: nn.Module, loss: Callable[[], Tensor], precision: Precision, mode: str | None
) -> Step:
    """Make a step as most training scripts take it: AdamW, fused on a GPU."""
    on_gpu = precision.device.type == "cuda"
    optimizer = torch.optim.AdamW(model.parameters(), lr=RATE, fused=on_gpu)
    forward = _compiled(loss, mode)

    def run() -> None:
        with precision.autocast():
            value = forward()
        value.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()

    return Step(run, model, optimizer)


def naive_step(cfg: Experiment, batch: Batch, mode: str | None = None) -> Step:
    """Make a step with naive attention that computes all logits at once; as workbook_step."""
    tokens, targets = batch
    model = GPT(cfg.model).to(tokens.device)
    for block in model.blocks:
        block.__class__, block.attention.__class__ = NaiveBlock, NaiveAttention

    def loss() -> Tensor:
        return F.cross_entropy(model(tokens)[0].flatten(0, 1), targets.flatten())

    return _plain_step(model, loss, Precision(cfg.train.precision, tokens.device), mode)


def hf_step(cfg: Experiment, batch: Batch, mode: str | None = None) -> Step:
    """Make a step of Hugging Face's GPT-2 of the same sizes; as workbook_step.

    Raises:
        UserError: `transformers` is not installed.
    """
    try:
        from transformers import GPT2Config, GPT2LMHeadModel, logging
    except ImportError:
        raise UserError("transformers is not installed; run: pip install -e '.[bench]'") from None
    logging.set_verbosity_error()  # it warns that its default token ids exceed a small vocabulary
    m, tokens = cfg.model, batch[0]
    sizes = GPT2Config(
        n_layer=m.num_layers,
        n_head=m.num_heads,
        n_embd=m.d_model,
        n_inner=m.d_ff,
        n_positions=m.max_seq_len,
        vocab_size=m.vocab_size,
        resid_pdrop=m.dropout,
        embd_pdrop=m.dropout,
        attn_pdrop=m.dropout,
        use_cache=False,
    )
    model = GPT2LMHeadModel(sizes).to(tokens.device).train()

    def loss() -> Tensor:
        return model(input_ids=tokens, labels=tokens).loss

    return _plain_step(model, loss, Precision(cfg.train.precision, tokens.device), mode)


def _compiled(function: Callable[..., Any], mode: str | None) -> Callable[..., Any]:
    """Compile a model or a function; mode None: return it as it is."""
    return function if mode is None else compiler.compile_anew(function, mode)


OTHERS = {"naive": naive_step, "hf_gpt2": hf_step}


def random_ids(cfg: Experiment) -> np.ndarray:
    """Draw token ids for at least two training batches and two evaluation batches."""
    tokens = max(BATCH_TOKENS, cfg.step_tokens)
    generator = np.random.default_rng(0)
    return generator.integers(cfg.model.vocab_size, size=2 * tokens + 1).astype(np.uint16)


def random_batch(cfg: Experiment, device: torch.device = CPU) -> Batch:
    """Draw the tokens and targets (B, T) of one step."""
    ids = random_ids(cfg)
    return Batches(ids, cfg.model.max_seq_len, cfg.train.batch_size, 0, device)(0)


class ScriptStep:
    """A step in a process of its own, with glibc's default allocator: what a user's script gets.

    Args:
        kind: Key of OTHERS.
        threads: torch threads of the process.
    """

    def __init__(self, kind: str, cfg: Experiment, threads: int):
        context = multiprocessing.get_context("spawn")
        self._connection, remote = context.Pipe()
        arguments = (kind, cfg.id, cfg.overrides, threads, remote)
        self._process = context.Process(target=_serve, args=arguments, daemon=True)
        self._process.start()

    def __call__(self) -> float:
        """Take the step; return its seconds."""
        self._connection.send(True)
        return self._connection.recv()

    def close(self) -> None:
        """End the process."""
        self._process.terminate()
        self._process.join()


def _serve(kind: str, exp: str, overrides: dict[str, Any], threads: int, connection: Any) -> None:
    """Make a step and time it at every request."""
    torch.set_num_threads(threads)
    cfg = load_config(exp, overrides)
    step = OTHERS[kind](cfg, random_batch(cfg))
    while connection.recv():
        connection.send(seconds_of(step))
