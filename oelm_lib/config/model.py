"""The keys of `model`: its size, and what its queries and keys are made of.

A key with a default may be left out of a file: the default switches off what the key adds.
"""

from collections.abc import Sequence
from typing import Annotated, Literal

from pydantic import Field, model_validator

from oelm_lib.config.fields import Count, Flag, Layers, Real, Section, Whole


class ModelConfig(Section):
    """Size of the model, and what its queries and keys are made of."""

    vocab_size: Annotated[int, Field(strict=True, ge=2, le=65536)]
    """V, tokens in the vocabulary; must equal that of the prepared corpus."""
    d_model: Count
    """D, width of the residual stream."""
    num_layers: Count
    """Number of Transformer blocks."""
    num_heads: Count
    """H, attention heads in a layer; must divide d_model."""
    d_ff: Count
    """Width of the feed-forward layer."""
    max_seq_len: Annotated[Count, Field(ge=2)]
    """T, tokens in a window: the length of the context."""
    dropout: Annotated[Real, Field(ge=0, le=0.99)]
    """Dropout probability of embeddings, attention, attention output, FFN hidden and FFN output."""
    qk_init: Literal["normal", "orthogonal"]
    """Initial W_q and W_k: Gaussian entries, or orthonormal rows within each head."""
    qk_scale: Annotated[Real, Field(gt=0)]
    """Norm of each initial row of W_q and W_k; with `normal` its expected value."""
    freeze_q: Flag
    """Whether W_q keeps its initial values, in the layers of frozen_layers."""
    freeze_k: Flag
    """Whether W_k keeps its initial values, in the layers of frozen_layers."""
    frozen_layers: Layers = "all"
    """Layers that freeze_q and freeze_k apply to, counted from 0, in ascending order."""
    freeze_from: Whole = 0
    """Updates after which W_q and W_k are frozen; 0: from the start."""
    freeze_until: Whole | None = None
    """Updates after which W_q and W_k are trained again; null: never."""
    qk_tied: Flag = False
    """Whether W_k and W_q are one matrix."""
    # Additions, each with a file in model/additions, in the order in which they act.
    qk_input_gain: Flag = False
    """Whether each dimension that W_q and W_k read has a trained gain."""
    delta_rank: Whole = 0
    """Rank of a trained matrix added to each head's rows of W_q and W_k; 0: none."""
    qk_bias: Flag = False
    """Whether Q and K have a bias, trained also where their weights are frozen."""
    head_mixing: Flag = False
    """Whether each head's query and key are trained mixtures of those of all heads."""
    qk_core: Flag = False
    """Whether each head has a trained (K, K) matrix between query and key."""
    key_conv: Flag = False
    """Whether keys pass a trained causal convolution of width 3, with a filter per dimension."""
    key_shift: Flag = False
    """Whether the first half of each head's key comes from the position before."""
    induction_heads: Whole = 0
    """Number of shifted heads, from head 0: W_k starts as W_q, keys of the position before."""
    qk_norm: Flag = False
    """Whether each head's query and key are divided by their root mean square."""
    qk_gain: Flag = False
    """Whether each dimension of Q and K has a trained gain."""
    head_temperature: Flag = False
    """Whether each head's scores have a trained factor."""
    position: Literal["learned", "rope", "alibi", "t5"] = "learned"
    """Learned embeddings, rotated Q and K, or a fixed or trained bias of the scores by distance."""
    query_distance: Flag = False
    """Whether the scores have a trained bias by distance that depends on the query."""
    forget_gate: Flag = False
    """Whether each head has a trained gate by which earlier positions fade."""
    head_gate: Whole = 0
    """Number of input dimensions that each head's trained output gate reads; 0: no gate."""

    @property
    def d_head(self) -> int:
        """K, width of a head."""
        return self.d_model // self.num_heads

    def freezes_at(self, step: int) -> bool:
        """Whether freeze_q and freeze_k hold at step 0, 1, ..."""
        return self.freeze_from <= step and (self.freeze_until is None or step < self.freeze_until)

    @property
    def freezes_throughout(self) -> bool:
        """Whether freeze_q and freeze_k hold at every step."""
        return self.freeze_from == 0 and self.freeze_until is None

    @property
    def freezable_layers(self) -> Sequence[int]:
        """Numbers of the layers that freeze_q and freeze_k apply to."""
        return range(self.num_layers) if self.frozen_layers == "all" else self.frozen_layers

    @property
    def is_frozen(self) -> bool:
        """Whether W_q or W_k of some layer is to be frozen; a run may end before freeze_from."""
        return (self.freeze_q or self.freeze_k) and bool(self.freezable_layers)

    @model_validator(mode="after")
    def _check_sizes(self):
        if self.d_model % self.num_heads:
            candidates = range(1, min(self.d_model, 1000) + 1)
            divisors = [str(n) for n in candidates if self.d_model % n == 0]
            allowed = ", ".join(divisors[:8]) + (", ..." if len(divisors) > 8 else "")
            raise ValueError(
                f"num_heads = {self.num_heads} does not divide d_model = {self.d_model};"
                f" use {allowed}"
            )
        if (self.position == "rope" or self.key_shift) and self.d_head % 2:
            raise ValueError(
                "rope and key_shift split a head in halves,"
                f" but d_head = {self.d_head}; change num_heads"
            )
        most = {
            "delta_rank": ("d_head", self.d_head),
            "head_gate": ("d_model", self.d_model),
            "induction_heads": ("num_heads", self.num_heads),
        }
        for key, (limit, value) in most.items():
            if getattr(self, key) > value:
                raise ValueError(
                    f"{key} = {getattr(self, key)} is above {limit} = {value}; lower it"
                )
        if self.induction_heads and self.qk_tied:
            raise ValueError("qk_tied ties all heads already; set induction_heads to 0")
        return self

    @model_validator(mode="after")
    def _check_freezing(self):
        if self.qk_tied and self.freeze_q != self.freeze_k:
            raise ValueError(
                "qk_tied makes W_k and W_q one matrix; set freeze_q and freeze_k alike"
            )
        if self.freeze_until is not None and self.freeze_until <= self.freeze_from:
            raise ValueError(
                f"freeze_until = {self.freeze_until} is not after freeze_from = {self.freeze_from}"
            )
        layers = () if self.frozen_layers == "all" else self.frozen_layers
        if list(layers) != sorted(set(layers)):
            # Otherwise one science would have several hashes, and a folder for each.
            raise ValueError("frozen_layers names each layer once, in ascending order")
        for layer in layers:
            if layer >= self.num_layers:
                raise ValueError(
                    f"frozen_layers names layer {layer};"
                    f" allowed are 0 .. {self.num_layers - 1} or all"
                )
        return self
