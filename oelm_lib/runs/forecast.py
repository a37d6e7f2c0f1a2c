"""How long a run will still take, from what its steps, evaluations and saves took lately."""

from collections import deque
from statistics import median, quantiles

from oelm_lib.config import TrainConfig

SLACK = 0.03
"""Half width of the narrowest range, as a share of the steps' time."""
UNMEASURED = 1 / 3
"""Cost of an evaluation token in training tokens, until an evaluation is measured."""


class Forecast:
    """Seconds left of a run, as a range.

    An evaluation counts as so many steps, so that a machine that slows down is noticed at once. The steps of about
    the last fortieth of the run decide, at least five log intervals and at most fifty.

    Args:
        train: The run's schedule.
        log_interval: Steps between two calls of `step`.
        eval_steps: Steps that take as long as an evaluation, until one is measured.
        final_evals: Evaluations that take as long as scoring the whole split at the end.
    """

    def __init__(
        self, train: TrainConfig, log_interval: int, eval_steps: float, final_evals: float
    ):
        self._train, self._eval_steps, self._final_evals = train, eval_steps, final_evals
        window = min(max(train.max_steps // log_interval // 40, 5), 50)
        self._steps: deque[float] = deque(maxlen=window)
        self._evals: deque[float] = deque(maxlen=5)
        self._saves: deque[float] = deque(maxlen=3)

    def step(self, seconds: float) -> None:
        """Add the seconds per step of a log interval: everything but evaluations and saves."""
        self._steps.append(seconds)

    def evaluation(self, seconds: float) -> None:
        """Add what an evaluation took, the saving of a new best included."""
        if self._steps:
            self._evals.append(seconds / median(self._steps))

    def save(self, seconds: float) -> None:
        """Add what a regular save took."""
        self._saves.append(seconds)

    def left(self, step: int) -> tuple[float, float] | None:
        """Seconds left (low, high) once `step` is logged, its evaluation and save still to come; None: unknown."""
        if not self._steps:
            return None
        spread = (
            quantiles(self._steps, n=4, method="inclusive")
            if len(self._steps) > 1
            else [*self._steps] * 3
        )
        total = self._train.max_steps
        evals = _still_to_come(step, total, self._train.eval_interval) + self._final_evals
        evaluation = median(self._evals or [self._eval_steps]) * spread[1]
        saves = _still_to_come(step, total, self._train.save_interval) * median(
            self._saves or [0.0]
        )
        low, high = (1 - SLACK) * spread[0], (1 + SLACK) * spread[2]
        costs = evals * evaluation + saves
        return (total - step) * low + costs, (total - step) * high + costs


def _still_to_come(step: int, total: int, interval: int) -> int:
    """Events at step or later: at every multiple of the interval, and at the end."""
    return -(-total // interval) - (step - 1) // interval
