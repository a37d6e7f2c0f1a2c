"""Time budget of a run: what its wall time goes to."""

import contextlib
import time
from collections.abc import Iterator

PHASES = ("setup", "compile", "data", "step", "evaluation", "saving", "final_evaluation")


class Budget:
    """Time budget of a run: seconds by phase, continued when the run resumes."""

    def __init__(self):
        self.spent = dict.fromkeys(PHASES, 0.0)
        self._start = time.perf_counter()

    def resume(self, spent: dict[str, float], elapsed: float) -> None:
        """Add what earlier sessions spent: seconds by phase, and wall seconds."""
        for phase, seconds in spent.items():
            self.spent[phase] += seconds
        self._start -= elapsed

    @contextlib.contextmanager
    def __call__(self, phase: str) -> Iterator[None]:
        """Add the seconds of the block to `phase`."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self.spent[phase] += time.perf_counter() - start

    @property
    def seconds(self) -> float:
        """Wall seconds of all sessions so far."""
        return time.perf_counter() - self._start

    def to_dict(self) -> dict[str, float]:
        """Return the seconds by phase; `other` closes the sum to the wall time."""
        return self.spent | {"other": max(self.seconds - sum(self.spent.values()), 0.0)}
