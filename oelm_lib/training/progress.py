"""Progress of a run: its speed between log points, and the ETA made from it."""

from collections import deque
from statistics import median, quantiles

from oelm_lib.config import Experiment
from oelm_lib.runs.timing import Budget

SLACK = 0.03
"""Half width of the narrowest range, as a share of the time of the steps."""
UNMEASURED = 1 / 3
"""Assumed cost of an evaluation token relative to a training token, until one is timed."""


class Progress:
    """Seconds per step since the last log point, and the seconds left as a range.

    The range spans the middle half of the recent log intervals: the last fortieth of the run, at
    least five intervals and at most fifty. The cost of an evaluation is kept in steps, so a machine
    that slows down changes the forecast at the next interval.

    Args:
        budget: Where the run's wall time goes, earlier sessions included.
        step: Steps done.
        evaluations: Evaluations done.
        windows: Windows of an evaluation, and of the whole validation split.
    """

    def __init__(
        self,
        cfg: Experiment,
        budget: Budget,
        step: int,
        evaluations: int,
        windows: tuple[int, int],
    ):
        subset, whole = windows
        spent = budget.spent
        self._train, self._budget = cfg.train, budget
        self._eval_steps = UNMEASURED * subset / cfg.train.batch_size
        if evaluations and spent["step"]:
            self._eval_steps = spent["evaluation"] / evaluations * step / spent["step"]
        # The end of a run scores the whole split twice: last weights and best weights.
        self._final_evals = 2 * whole / subset
        window = min(max(cfg.train.max_steps // cfg.machine.log_interval // 40, 5), 50)
        self._steps: deque[float] = deque(maxlen=window)
        self._evals: deque[float] = deque(maxlen=5)
        self._saves: deque[float] = deque(maxlen=3)
        self._last = self._clocks(step)

    def log_point(self, step: int) -> float:
        """Update the forecast with the steps since the last log point; return seconds per step.

        The forecast counts all time but evaluations and saves; the result only the time in steps.
        """
        before, self._last = self._last, self._clocks(step)
        steps, computing, passed = (new - old for new, old in zip(self._last, before, strict=True))
        self.add_step(passed / steps)
        return computing / steps

    def add_step(self, seconds: float) -> None:
        """Add the seconds per step of a log interval, without its evaluations and saves."""
        self._steps.append(seconds)

    def add_evaluation(self, seconds: float) -> None:
        """Add the seconds of an evaluation, the save of a new best included."""
        if self._steps:
            self._evals.append(seconds / median(self._steps))

    def add_save(self, seconds: float) -> None:
        """Add the seconds of a regular save."""
        self._saves.append(seconds)

    def seconds_left(self, step: int) -> tuple[float, float] | None:
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

    def _clocks(self, step: int) -> tuple[int, float, float]:
        """Return steps, seconds within them, and all seconds but of evaluations and saves."""
        spent = self._budget.spent
        rest = self._budget.seconds - spent["evaluation"] - spent["saving"]
        return step, spent["step"], rest


def _events_ahead(step: int, total: int, interval: int) -> int:
    """Return the number of events from `step` on: at multiples of the interval and at the end."""
    return -(-total // interval) - (step - 1) // interval
