"""The one Transformer of the workbook; arms differ by config keys only."""

from collections.abc import Iterator

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from oelm_lib.config import ModelConfig
from oelm_lib.model.additions import active
from oelm_lib.model.additions.base import Positions
from oelm_lib.model.attention import CausalSelfAttention, attention_scores, make_positions
from oelm_lib.model.cost import CHUNK
from oelm_lib.model.dropout import dropout
from oelm_lib.model.init import init_weights_

FEW_LOGITS = 1 << 20
"""Logits of a batch that are always held at once: the chunked loss imports torch.compile (3 s)."""
HAS_CHUNKED_LOSS = hasattr(F, "linear_cross_entropy")
"""False before torch 2.13, which `make gpu` may meet; all logits are then held at once."""
VOCAB_MULTIPLE = 64
"""Tensor cores need rows of logits whose length is a multiple of this; 50,257 is slow."""


class Block(nn.Module):
    """Pre-LN Transformer block: attention, then a GELU feed-forward layer."""

    def __init__(self, cfg: ModelConfig, layer: int):
        super().__init__()
        self.ln1 = nn.LayerNorm(cfg.d_model)
        self.attention = CausalSelfAttention(cfg, layer)
        self.ln2 = nn.LayerNorm(cfg.d_model)
        self.fc_in = nn.Linear(cfg.d_model, cfg.d_ff)
        self.fc_out = nn.Linear(cfg.d_ff, cfg.d_model)
        self.dropout = cfg.dropout

    def forward(
        self,
        x: Float[Tensor, "B T D"],
        positions: Positions | None = None,
        past: dict[str, Tensor] | None = None,
    ) -> Float[Tensor, "B T D"]:
        """Add attention and feed-forward to the residual stream."""
        x = x + self.attention(self.ln1(x), positions, past)
        hidden = dropout(F.gelu(self.fc_in(self.ln2(x))), self.dropout, self.training)
        return x + dropout(self.fc_out(hidden), self.dropout, self.training)


class GPT(nn.Module):
    """Decoder-only language model with a tied head.

    Args:
        cfg: Sizes, and what queries and keys are made of.
        seed: Seeds, with a parameter's name, its random values: arms with the same seed start with
            equal values of the parameters they share.
    """

    def __init__(self, cfg: ModelConfig, seed: int = 42):
        super().__init__()
        self.cfg, self.additions = cfg, active(cfg)
        # torch's own init, soon overwritten, would draw from the default generator, which belongs
        # to dropout. The meta device would avoid it, but imports all of torch.compile (3 s).
        with torch.random.fork_rng(devices=[]):
            self.token_embedding = nn.Embedding(cfg.vocab_size, cfg.d_model)
            if cfg.position == "learned":
                self.position_embedding = nn.Embedding(cfg.max_seq_len, cfg.d_model)
            self.blocks = nn.ModuleList(Block(cfg, layer) for layer in range(cfg.num_layers))
            self.ln_out = nn.LayerNorm(cfg.d_model)
        init_weights_(self, cfg, seed)

    def forward(
        self, tokens: Int[Tensor, "B T"], targets: Int[Tensor, "B T"] | None = None
    ) -> tuple[Float[Tensor, "B T V"] | None, Float[Tensor, ""] | None]:
        """Return logits of the next token, or with targets their mean cross entropy in nats.

        Args:
            tokens: T at most max_seq_len.
            targets: The next tokens; -100 is not scored.

        Returns:
            (logits, None), or (None, loss) where targets are given: the logits are then not kept.
        """
        x, head = self.hidden(tokens), self.token_embedding.weight
        if targets is None:
            return F.linear(x, head), None
        x, targets = x.flatten(0, 1), targets.flatten()
        # The chunked loss makes its gradients before the scaler multiplies them, so in fp16 they
        # would vanish; in bf16 it returns a bf16, off by up to 0.02 nats.
        half = torch.is_autocast_enabled(x.device.type)
        if half or len(x) * len(head) <= FEW_LOGITS or not HAS_CHUNKED_LOSS:
            logits = padded_logits(x, head) if half and x.is_cuda else F.linear(x, head)
            return None, F.cross_entropy(logits.float(), targets)
        return None, chunked_loss(x, head, targets)

    def token_losses(
        self, tokens: Int[Tensor, "B T"], targets: Int[Tensor, "B T"]
    ) -> Float[Tensor, "B T"]:
        """Return the cross entropy of each target in nats, 0 where it is -100.

        Logits are held for CHUNK positions at a time.
        """
        x = self.hidden(tokens).flatten(0, 1)
        losses = [
            F.cross_entropy(
                F.linear(part, self.token_embedding.weight).float(), goal, reduction="none"
            )
            for part, goal in zip(x.split(CHUNK), targets.flatten().split(CHUNK), strict=True)
        ]
        return torch.cat(losses).view_as(targets)

    def parameter_counts(self) -> dict[str, int]:
        """Return numbers of scalars: total, trainable (of a model as built: at some step), frozen.

        As built, they are those of cost.parameter_counts.
        """
        total = sum(p.numel() for p in self.parameters())
        trainable = sum(p.numel() for p in self.parameters() if p.requires_grad)
        return {"total": total, "trainable": trainable, "frozen": total - trainable}

    def set_frozen(self, step: int) -> None:
        """Freeze or train W_q and W_k as the config asks for step 0, 1, ...

        In a new model, all parameters that are trained at some step have requires_grad, so an
        optimizer made before the first call holds all of them.
        """
        for block in self.blocks:
            block.attention.set_frozen(step)

    def next_logits(
        self, tokens: Int[Tensor, "B T"], past: list[dict[str, Tensor]]
    ) -> Float[Tensor, "B V"]:
        """Return the logits of the token after these.

        Args:
            tokens: They follow those in `past`; after the first call, one a row.
            past: A dict per block, empty before the first call; extended in place.
        """
        return F.linear(self.hidden(tokens, past)[:, -1], self.token_embedding.weight)

    def hidden(
        self, tokens: Int[Tensor, "B T"], past: list[dict[str, Tensor]] | None = None
    ) -> Float[Tensor, "B T D"]:
        """Return the normalised residual stream that the head reads; `past` as in next_logits."""
        first = past[0]["keys"].shape[2] if past and past[0] else 0
        x, positions = self._embed(tokens, first)
        for layer, block in enumerate(self.blocks):
            x = block(x, positions, past[layer] if past else None)
        return self.ln_out(x)

    def attention_scores(self, tokens: Int[Tensor, "B T"]) -> Iterator[Float[Tensor, "B H T T"]]:
        """Yield the scores of each block's attention; -inf on later keys."""
        x, positions = self._embed(tokens)
        for block in self.blocks:
            q, k, _, bias = block.attention.heads(block.ln1(x), positions)
            yield attention_scores(q, k, bias)
            x = block(x, positions)

    def _embed(
        self, tokens: Int[Tensor, "B T"], first: int = 0
    ) -> tuple[Float[Tensor, "B T D"], Positions | None]:
        """Return what the blocks read, of tokens at the positions from `first` on."""
        length = tokens.shape[1]
        if first + length > self.cfg.max_seq_len:
            raise ValueError(
                f"{first + length} tokens exceed max_seq_len = {self.cfg.max_seq_len};"
                " shorten the input"
            )
        x = self.token_embedding(tokens)
        if self.cfg.position == "learned":
            x = x + self.position_embedding.weight[first : first + length]
        positions = make_positions(self.cfg, self.additions, first, length, x.device)
        return dropout(x, self.cfg.dropout, self.training), positions


def chunked_loss(
    x: Float[Tensor, "N D"], head: Float[Tensor, "V D"], targets: Int[Tensor, " N"]
) -> Float[Tensor, ""]:
    """Return the mean cross entropy of the logits `x @ head.T`, CHUNK positions at a time."""
    options = nn.LinearCrossEntropyOptions(
        allow_retain_graph=torch.compiler.is_compiling(),
        batch_chunk_size=CHUNK,
        chunking_method=None,
    )
    return F.linear_cross_entropy(x, head, targets, options=options)


def padded_logits(x: Float[Tensor, "N D"], head: Float[Tensor, "V D"]) -> Float[Tensor, "N W"]:
    """Return logits over a vocabulary padded to a multiple of VOCAB_MULTIPLE, -inf in the padding.

    Their cross entropy and its gradients are those of the plain logits.
    """
    padding = -len(head) % VOCAB_MULTIPLE
    bias = F.pad(head.new_zeros(len(head)), (0, padding), value=-torch.inf)
    return F.linear(x, F.pad(head, (0, 0, 0, padding)), bias)
