"""Timelines replayed: what the forecast says at every log point, against what the run then took."""

import numpy as np
import pytest

from oelm_lib import config
from oelm_lib.runs.timing import Budget
from oelm_lib.training.progress import UNMEASURED, Progress, _events_ahead

LOG = 10
STEP_SECONDS = 0.09
"""As in the log."""


def replay(cfg, eval_seconds, slower=lambda step: 1.0, noise=0.05, final_evals=20.0):
    """Forecasts of a synthetic run: (share of time gone, middle, low, high, truth) a log point."""
    random, train = np.random.default_rng(0), cfg.train
    windows = train.eval_tokens // cfg.model.max_seq_len
    progress = Progress(cfg, Budget(), 0, 0, (windows, windows * final_evals / 2))
    clock, said = 0.0, []
    for step in range(LOG, train.max_steps + 1, LOG):
        factor = slower(step)
        seconds = STEP_SECONDS * factor * random.lognormal(0, noise)
        clock += LOG * seconds
        progress.add_step(seconds)
        said.append((clock, *progress.seconds_left(step)))
        if step % train.eval_interval == 0:
            seconds = eval_seconds * factor * random.lognormal(0, noise)
            clock += seconds
            progress.add_evaluation(seconds)
        if step % train.save_interval == 0:
            clock += 1.5
            progress.add_save(1.5)
    end = clock + final_evals * eval_seconds * slower(train.max_steps)
    at, low, high = np.array(said).T
    return at / end, (low + high) / 2, low, high, end - at


def first_guess_of_a_step(cfg):
    """Progress whose first guess of an evaluation, and of the end of the run, is one step each."""
    windows = cfg.train.batch_size / UNMEASURED
    return Progress(cfg, Budget(), 0, 0, (windows, windows / 2))


@pytest.fixture
def cfg():
    return config.load_config(
        "GPT-02", "train.max_steps=20000 train.eval_interval=200 train.save_interval=1000"
    )


# The log's own share: an evaluation every 1,000 steps took as long as 818 steps.
@pytest.mark.parametrize("eval_share", [0.03, 0.45])
def test_the_forecast_of_a_steady_run_is_within_10_percent_after_a_twentieth(cfg, eval_share):
    eval_seconds = cfg.train.eval_interval * STEP_SECONDS * eval_share / (1 - eval_share)
    gone, middle, low, high, truth = replay(cfg, eval_seconds)
    from_here = gone >= 0.05
    assert np.abs(middle / truth - 1)[from_here].max() < 0.10
    inside = (low <= truth) & (truth <= high)
    assert inside[from_here].mean() > 0.5


def test_after_a_slowdown_the_forecast_is_right_again_within_a_twentieth_of_the_run(cfg):
    half = cfg.train.max_steps // 2
    gone, middle, *_, truth = replay(cfg, 10.0, slower=lambda step: 1.0 if step <= half else 2.0)
    wrong = np.abs(middle / truth - 1)
    slow_from = gone[half // LOG]
    assert wrong[(gone > 0.05) & (gone < slow_from)].min() > 0.2  # no one can know before
    assert wrong[gone > slow_from + 0.05].max() < 0.10


def test_a_short_run_has_a_forecast():
    cfg = config.load_config("DEMO-02")
    gone, middle, *_, truth = replay(cfg, 1.0)
    assert (
        np.abs(middle / truth - 1)[gone > 0.15].max() < 0.10
    )  # its first evaluation comes at a tenth


def test_nothing_is_said_before_a_step_is_measured(cfg):
    progress = first_guess_of_a_step(cfg)
    assert progress.seconds_left(0) is None
    progress.add_evaluation(3.0)  # before any step it cannot be counted in steps
    progress.add_step(0.1)
    low, high = progress.seconds_left(cfg.train.max_steps)
    assert (
        low == high == pytest.approx(2 * 0.1)
    )  # the last evaluation and the final one, at the first guess


def test_only_the_last_evaluations_and_saves_count(cfg):
    progress = first_guess_of_a_step(cfg)
    progress.add_step(0.1)
    for seconds in [1.0] * 20 + [3.0] * 5:
        progress.add_evaluation(seconds)
    for seconds in [1.0] * 20 + [7.0] * 3:
        progress.add_save(seconds)
    low, high = progress.seconds_left(cfg.train.max_steps)
    assert low == high == pytest.approx(2 * 3.0 + 7.0)


def test_events_ahead_count_this_step_and_the_end():
    assert [_events_ahead(step, 25, 10) for step in (1, 9, 10, 11, 20, 21, 25)] == [
        3,
        3,
        3,
        2,
        2,
        1,
        1,
    ]
    assert [_events_ahead(step, 20, 10) for step in (1, 10, 11, 20)] == [2, 2, 1, 1]
