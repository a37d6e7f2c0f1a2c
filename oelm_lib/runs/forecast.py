"""ETA of a run, from its recent steps, evaluations and saves."""

from collections import deque
from statistics import median, quantiles

from oelm_lib.config import TrainConfig

SLACK = 0.03
"""Half width of the narrowest range, as a share of the time of the steps."""
UNMEASURED = 1 / 3
"""Cost of a token in an evaluation over one in training, until an evaluation is measured."""


class Forecast:
    """Forecast of the seconds left, as a range.

    The range spans the middle half of the recent log intervals: the last fortieth of the run, at
    least five intervals and at most fifty. The cost of an evaluation is kept in steps, so a machine
    that slows down changes the forecast at the next interval.

    Args:
        train: The run's schedule.
        log_interval: Steps between two calls of `step`.
        eval_steps: Cost of an evaluation in steps, until one is measured.
        final_evals: Cost of scoring the whole split at the end, in evaluations.
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
        """Add the seconds per step of a log interval, without its evaluations and saves."""
        self._steps.append(seconds)

    def evaluation(self, seconds: float) -> None:
        """Add the seconds of an evaluation, the save of a new best included."""
        if self._steps:
            self._evals.append(seconds / median(self._steps))

    def save(self, seconds: float) -> None:
        """Add the seconds of a regular save."""
        self._saves.append(seconds)

    def left(self, step: int) -> tuple[float, float] | None:
        """Return the seconds left (low, high), or None before a step is measured.

        Args:
            step: Steps done and logged; the evaluation and save due at this step are still ahead.
        """
        if not self._steps:
            return None
        if len(self._steps) > 1:
            low, middle, high = quantiles(self._steps, n=4, method="inclusive")
        else:
            low = middle = high = self._steps[0]
        total = self._train.max_steps
        evals = _events_ahead(step, total, self._train.eval_interval) + self._final_evals
        saves = _events_ahead(step, total, self._train.save_interval)
        costs = evals * median(self._evals or [self._eval_steps]) * middle
        costs += saves * median(self._saves or [0.0])
        steps = total - step
        return steps * (1 - SLACK) * low + costs, steps * (1 + SLACK) * high + costs


def _events_ahead(step: int, total: int, interval: int) -> int:
    """Return the number of events from `step` on: at multiples of the interval and at the end."""
    return -(-total // interval) - (step - 1) // interval
