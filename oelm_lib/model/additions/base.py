"""What an addition to attention declares.

An addition is a key of `ModelConfig` that is off by default, and a file of this folder with the
key's name. It subclasses `Addition` and overrides the hooks it needs. Modules of this folder import
torch inside functions only: the cost model counts additions without torch.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

from oelm_lib.config import ModelConfig

if TYPE_CHECKING:
    from jaxtyping import Float, Int
    from torch import Generator, Tensor, nn


class Parameter(NamedTuple):
    """Shape of a trained tensor of each layer, and the function that fills it at the start."""

    shape: tuple[int, ...]
    start: Callable[[Tensor, Generator], Any]

    @property
    def count(self) -> int:
        """Scalars."""
        return math.prod(self.shape)


class Positions(NamedTuple):
    """Positions of one forward pass, made once and handed to all layers."""

    first: int
    """Position of the first query."""
    mask: Float[Tensor, "T S"]
    """0 where a query (row) may look, -inf on later keys."""
    tables: dict[str, Any]
    """Name of an addition -> its `table`."""


class Product(NamedTuple):
    """`batch` products of an (m, k) with a (k, n) matrix in a layer's forward pass."""

    batch: int
    m: int
    k: int
    n: int


class Addition:
    """One thing that may be added to causal self-attention; the hooks are listed as they act."""

    name = ""
    """Its key of ModelConfig, or its value of the key `position`; set by the registry."""
    folds = False
    """Whether a plain W_q, W_k and biases express it, so that it can be exported as a GPT-2."""
    needs_past_queries = False
    """Whether `transform` gets the queries of all positions, as it gets their keys."""

    def is_on(self, cfg: ModelConfig) -> bool:
        """Whether a config has it."""
        return cfg.position == self.name or bool(getattr(cfg, self.name, False))

    def parameters(self, cfg: ModelConfig) -> dict[str, Parameter]:
        """Name -> shape and start of its tensors in each layer."""
        return {}

    def products(self, cfg: ModelConfig, batch_size: int) -> list[Product]:
        """Matrix products of each layer's forward pass."""
        return []

    def initialize(self, attention: nn.Module) -> None:
        """Change other weights at the start, after they are drawn."""

    def table(self, cfg: ModelConfig, distance: Int[Tensor, "T S"]) -> Any:
        """Tensors that depend on positions alone, for all layers."""

    def read(
        self, attention: nn.Module, x: Float[Tensor, "B T D"], side: str
    ) -> Float[Tensor, "B T D"]:
        """Change what W_q (side "q") or W_k (side "k") reads."""
        return x

    def project(
        self,
        attention: nn.Module,
        x: Float[Tensor, "B T D"],
        heads: Float[Tensor, "B H T K"],
        side: str,
    ) -> Float[Tensor, "B H T K"]:
        """Add to the queries or keys something computed from the same position's input."""
        return heads

    def remember(
        self, attention: nn.Module, x: Float[Tensor, "B T D"]
    ) -> Float[Tensor, "B H T n"] | None:
        """Something of each position that later queries need, given to `score`."""

    def transform(
        self,
        attention: nn.Module,
        q: Float[Tensor, "B H T K"],
        k: Float[Tensor, "B H S K"],
        positions: Positions | None,
    ) -> tuple[Float[Tensor, "B H T K"], Float[Tensor, "B H S K"]]:
        """Change queries, and the keys of all positions up to the last query."""
        return q, k

    def score(
        self,
        attention: nn.Module,
        q: Float[Tensor, "B H T K"],
        positions: Positions,
        remembered: Float[Tensor, "B H S n"] | None,
    ) -> Float[Tensor, "#B H T S"] | None:
        """Return what is added to the scores q.k / sqrt(K)."""

    def output(
        self,
        attention: nn.Module,
        x: Float[Tensor, "B T D"],
        y: Float[Tensor, "B H T K"],
    ) -> Float[Tensor, "B H T K"]:
        """Change what the heads return."""
        return y


def zeros(weight: Tensor, generator: Generator) -> None:
    """Start at 0."""
    weight.zero_()


def ones(weight: Tensor, generator: Generator) -> None:
    """Start at 1."""
    weight.fill_(1.0)


def identity(weight: Tensor, generator: Generator) -> None:
    """Start each (n, n) matrix as the identity."""
    weight.zero_().diagonal(dim1=-2, dim2=-1).fill_(1.0)


def gaussian(deviation: float) -> Callable[[Tensor, Generator], None]:
    """Start as N(0, deviation^2)."""

    def start(weight: Tensor, generator: Generator) -> None:
        weight.normal_(generator=generator).mul_(deviation)

    return start


def earlier(x: Float[Tensor, "B H T n"], steps: int) -> Float[Tensor, "B H T n"]:
    """Return the values of `steps` positions before; 0 before the first."""
    from torch.nn.functional import pad

    return pad(x, (0, 0, steps, 0))[:, :, : x.shape[2]]
