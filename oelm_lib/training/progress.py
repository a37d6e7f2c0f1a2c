"""Speed of a run between log points, and the forecast made from it."""

from oelm_lib.config import Experiment
from oelm_lib.runs.forecast import UNMEASURED, Forecast
from oelm_lib.runs.status import Budget


class Progress:
    """Seconds per step since the last log point.

    Args:
        budget: Where the run's wall time goes, earlier sessions included.
        step: Steps done.
        evaluations: Evaluations done.
        windows: Windows of an evaluation, and of the whole validation split.

    Attributes:
        forecast: Seconds that the run will still take.
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
        eval_steps = UNMEASURED * subset / cfg.train.batch_size
        if evaluations and spent["step"]:
            eval_steps = spent["evaluation"] / evaluations * step / spent["step"]
        # The end of a run scores the whole split twice: last weights and best weights.
        final_evals = 2 * whole / subset
        self.forecast = Forecast(cfg.train, cfg.machine.log_interval, eval_steps, final_evals)
        self._budget = budget
        self._last = self._clocks(step)

    def log_point(self, step: int) -> float:
        """Tell the forecast of a log point; return the seconds per step since the last one."""
        before, self._last = self._last, self._clocks(step)
        steps, within, outside = (new - old for new, old in zip(self._last, before, strict=True))
        self.forecast.step(outside / steps)
        return within / steps

    def _clocks(self, step: int) -> tuple[int, float, float]:
        """Steps, seconds within steps, seconds of everything but evaluations and saves."""
        spent = self._budget.spent
        rest = self._budget.seconds - spent["evaluation"] - spent["saving"]
        return step, spent["step"], rest
