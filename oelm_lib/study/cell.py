"""Cells and runs of a study: what is tuned together, and what is trained once."""

from dataclasses import dataclass

BASE_SIZE = "base"
"""Name of the size that the plan's own settings make."""
TUNE, CONFIRM = "tune", "confirm"
DIGITS = 3
"""Significant digits of a learning rate."""


@dataclass(frozen=True)
class Cell:
    """An arm of one size on one corpus: it is tuned once, and confirmed at one learning rate."""

    corpus: str
    size: str
    arm: str

    def __str__(self) -> str:
        return f"{self.place}, {self.arm}"

    @property
    def place(self) -> str:
        """Corpus and size in words; a size is named where it is not that of the base."""
        return self.corpus if self.size == BASE_SIZE else f"{self.corpus}, {self.size}"


@dataclass(frozen=True)
class PlannedRun:
    """A run of a cell at a learning rate with a seed."""

    cell: Cell
    rate: float
    seed: int
    stage: str
    """TUNE or CONFIRM."""

    def __str__(self) -> str:
        return f"{self.cell}, rate {self.rate:g}, seed {self.seed} ({self.stage})"


def rounded_rate(rate: float) -> float:
    """Return a learning rate to DIGITS significant digits."""
    return float(f"{rate:.{DIGITS}g}")
