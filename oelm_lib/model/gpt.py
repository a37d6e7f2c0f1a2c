"""The one Transformer of the workbook; arms differ by config fields only."""

from collections.abc import Iterator

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from oelm_lib.config import ModelConfig
from oelm_lib.model.attention import CausalSelfAttention, attention_scores
from oelm_lib.model.dropout import dropout
from oelm_lib.model.init import init_weights_

IGNORED = -100
"""Target that is not scored."""
CHUNK = 512
"""Positions whose logits are held at once."""
FEW_LOGITS = 1 << 20
"""Logits of a batch that may be held at once; the chunked loss' first call imports all of torch.compile (3 s)."""


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
        self, x: Float[Tensor, "B T D"], past: list[Tensor] | None = None
    ) -> Float[Tensor, "B T D"]:
        """Add attention and feed-forward to the residual stream."""
        x = x + self.attention(self.ln1(x), past)
        hidden = dropout(F.gelu(self.fc_in(self.ln2(x))), self.dropout, self.training)
        return x + dropout(self.fc_out(hidden), self.dropout, self.training)


class GPT(nn.Module):
    """Decoder-only language model with a tied head.

    Args:
        cfg: Sizes and the Q/K state.
        seed: Names every parameter's random stream, so arms with one seed share what they have in common.
    """

    def __init__(self, cfg: ModelConfig, seed: int = 42):
        super().__init__()
        self.cfg = cfg
        # torch's own init, soon overwritten, would draw from the default generator, which is dropout's. The meta device
        # would spare it, but imports all of torch.compile (3 s).
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
        """Logits of the next token, or with targets their mean cross entropy in nats.

        Args:
            tokens: T at most max_seq_len.
            targets: The next tokens; -100 is not scored.

        Returns:
            (logits, None), or (None, loss) where targets are given: the logits need not outlive the loss.
        """
        x, head = self.hidden(tokens), self.token_embedding.weight
        if targets is None:
            return F.linear(x, head), None
        x, targets = x.flatten(0, 1), targets.flatten()
        # The chunked loss makes its gradients before the scaler multiplies them: in fp16 they would vanish.
        if torch.is_autocast_enabled(x.device.type) or len(x) * len(head) <= FEW_LOGITS:
            return None, F.cross_entropy(F.linear(x, head).float(), targets, ignore_index=IGNORED)
        options = nn.LinearCrossEntropyOptions(torch.compiler.is_compiling(), CHUNK, None)
        return None, F.linear_cross_entropy(x, head, targets, ignore_index=IGNORED, options=options)

    def token_losses(
        self, tokens: Int[Tensor, "B T"], targets: Int[Tensor, "B T"]
    ) -> Float[Tensor, "B T"]:
        """Cross entropy of each target in nats, 0 where it is -100; logits are held for a chunk at a time."""
        x = self.hidden(tokens).flatten(0, 1)
        chunks = [
            F.cross_entropy(
                F.linear(part, self.token_embedding.weight).float(),
                goal,
                ignore_index=IGNORED,
                reduction="none",
            )
            for part, goal in zip(x.split(CHUNK), targets.flatten().split(CHUNK), strict=True)
        ]
        return torch.cat(chunks).view_as(targets)

    def freeze(self, step: int) -> bool:
        """Freeze or train Q and K as the config asks for step 0, 1, ...; returns whether that is a change.

        As built, what is trained at any step has requires_grad, so that an optimizer made then knows it.
        """
        return any([block.attention.freeze(step) for block in self.blocks])

    def next_logits(
        self, tokens: Int[Tensor, "B T"], past: list[list[Tensor]]
    ) -> Float[Tensor, "B V"]:
        """Logits of the token after these, which follow those in `past`: [] for each block before the first call."""
        return F.linear(self.hidden(tokens, past)[:, -1], self.token_embedding.weight)

    def hidden(
        self, tokens: Int[Tensor, "B T"], past: list[list[Tensor]] | None = None
    ) -> Float[Tensor, "B T D"]:
        """The normalised residual stream that the head reads; `past` is as in next_logits."""
        x = self._embedded(tokens, past[0][0].shape[2] if past and past[0] else 0)
        for layer, block in enumerate(self.blocks):
            x = block(x, past[layer]) if past else block(x)
        return self.ln_out(x)

    def attention_scores(self, tokens: Int[Tensor, "B T"]) -> Iterator[Float[Tensor, "B H T T"]]:
        """Scores of each block's attention, one block at a time; -inf on later keys."""
        x = self._embedded(tokens)
        for block in self.blocks:
            q, k, _, bias = block.attention.heads(block.ln1(x))
            yield attention_scores(q, k, bias)
            x = block(x)

    def _embedded(self, tokens: Int[Tensor, "B T"], first: int = 0) -> Float[Tensor, "B T D"]:
        """The residual stream before the blocks, of tokens at the positions from `first` on."""
        end = first + tokens.shape[1]
        if end > self.cfg.max_seq_len:
            raise ValueError(
                f"{end} tokens exceed max_seq_len = {self.cfg.max_seq_len}; cut the input"
            )
        x = self.token_embedding(tokens)
        if self.cfg.position == "learned":
            x = x + self.position_embedding.weight[first:end]
        return dropout(x, self.cfg.dropout, self.training)


def parameter_counts(model: nn.Module) -> dict[str, int]:
    """Numbers of scalars: total, trainable (of a model as built: at some step), frozen."""
    total = sum(p.numel() for p in model.parameters())
    trainable = sum(p.numel() for p in model.parameters() if p.requires_grad)
    return {"total": total, "trainable": trainable, "frozen": total - trainable}
