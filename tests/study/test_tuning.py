import math

import numpy as np
import pytest

from oelm_lib.study.schema import Tune
from oelm_lib.study.tuning import (
    EDGE,
    INTERIOR,
    NO_STABLE_RATE,
    fit_rates,
    is_precise,
    next_rates,
    stable_means,
)

TUNE = Tune(seeds=(1, 2), start=4e-3, factor=1.414)
SIMULATIONS = 1000


def tune_to_the_end(loss, start=4e-3, tune=TUNE):
    """Points of a tuning whose runs cost nothing."""
    points = []
    while rates := next_rates(points, tune, start):
        points += [(rate, seed, loss(rate, seed)) for rate in rates for seed in tune.seeds]
    return points


def parabola(optimum, curvature=0.07, loss=3.0):
    return lambda rate, seed: loss + 0.01 * seed + curvature * math.log2(rate / optimum) ** 2


def test_minimum_of_noisy_parabolas_is_within_the_stated_error_in_95_percent():
    draw = np.random.default_rng(0)
    inside, runs = [], []
    for _ in range(SIMULATIONS):
        optimum = 4e-3 * 2 ** draw.uniform(-1.5, 1.5)
        exact = parabola(optimum, draw.uniform(0.05, 0.1))
        points = tune_to_the_end(lambda r, s, exact=exact: exact(r, s) + draw.normal(0, 0.006))
        fit = fit_rates(points)
        assert fit.state == INTERIOR
        assert fit.error <= TUNE.error
        inside.append(fit.low <= optimum <= fit.high)
        runs.append(len(points))
    assert np.mean(inside) >= 0.95 - 3 * math.sqrt(0.95 * 0.05 / SIMULATIONS)
    assert np.mean(runs) < 10


@pytest.mark.parametrize("optimum", [1e-5, 1.0])
def test_a_minimum_out_of_reach_of_the_rates_is_an_edge(optimum):
    """The page used not to say that 39 of 50 tuned rates lay at an edge."""
    points = tune_to_the_end(parabola(optimum))
    fit = fit_rates(points)
    assert fit.state == EDGE
    assert len({rate for rate, _, _ in points}) == TUNE.most_rates
    rates = [rate for rate, _, _ in points]
    assert fit.rate == (min(rates) if optimum < 1e-3 else max(rates))


@pytest.mark.parametrize("optimum", [1.5e-3, 3e-3, 4e-3, 7e-3, 1.5e-2])
def test_rates_are_added_until_the_minimum_lies_between_them(optimum):
    points = tune_to_the_end(parabola(optimum))
    rates = sorted({rate for rate, _, _ in points})
    fit = fit_rates(points)
    assert fit.state == INTERIOR
    assert rates[0] < fit.rate < rates[-1]
    assert fit.rate == pytest.approx(optimum, rel=0.01)
    assert fit.loss == pytest.approx(3.015)
    seeds_by_rate = {rate: sorted(s for r, s, _ in points if r == rate) for rate in rates}
    assert set(map(tuple, seeds_by_rate.values())) == {TUNE.seeds}


def test_the_chosen_rate_is_the_fitted_one_not_the_best_tried():
    fit = fit_rates(tune_to_the_end(parabola(4.6e-3)))
    assert fit.rate == pytest.approx(4.6e-3, rel=0.01)


def test_a_rate_at_which_a_seed_diverged_is_an_edge():
    def loss(rate, seed):
        return None if rate > 5e-3 and seed == 2 else parabola(2e-2)(rate, seed)

    points = tune_to_the_end(loss)
    fit = fit_rates(points)
    assert fit.state == EDGE
    assert fit.rate < 5e-3
    assert len({rate for rate, _, _ in points}) < TUNE.most_rates


def test_rates_beside_divergence_are_tried_until_the_minimum_is_interior():
    def loss(rate, seed):
        return None if rate > 5e-3 else parabola(3.9e-3)(rate, seed)

    fit = fit_rates(tune_to_the_end(loss))
    assert fit.state == INTERIOR
    assert fit.rate == pytest.approx(3.9e-3, rel=0.02)


def test_an_arm_that_always_diverges_ends_with_a_state_and_no_rate():
    """An arm whose rates all diverged used to stop the page."""
    points = tune_to_the_end(lambda rate, seed: None)
    fit = fit_rates(points)
    assert (fit.state, fit.rate) == (NO_STABLE_RATE, None)
    assert len({rate for rate, _, _ in points}) == TUNE.most_rates


def test_too_few_points_are_no_fit():
    assert fit_rates([]).state == NO_STABLE_RATE
    assert fit_rates([(1e-3, 1, 3.0), (2e-3, 1, 2.9), (4e-3, 1, 3.0)]).state == EDGE


def test_noise_that_hides_the_curvature_asks_for_more_rates():
    noisy = [(r, s, 3.0 + 0.02 * (-1) ** (s + i)) for i, r in enumerate((2.83e-3, 4e-3, 5.66e-3))
             for s in (1, 2)]  # fmt: skip
    assert next_rates(noisy, TUNE, 4e-3)


def test_tuning_is_deterministic():
    assert tune_to_the_end(parabola(6e-3)) == tune_to_the_end(parabola(6e-3))


def test_a_rate_at_which_seeds_disagree_is_an_edge_not_a_point_of_the_fit():
    """Near the edge of stability one seed blows up; its loss once ruined the parabola."""

    def loss(rate, seed):
        return parabola(5e-3)(rate, seed) + (0.7 if rate > 6e-3 and seed == 1 else 0.0)

    points = tune_to_the_end(loss)
    fit = fit_rates(points)
    assert fit.state == INTERIOR
    assert fit.rate == pytest.approx(5e-3, rel=0.02)


def test_an_imprecise_minimum_is_refined_between_its_rates():
    """Rates outside the window of the fit once were added in vain."""

    def loss(rate, seed):
        x = math.log2(rate / 4e-3)
        return 3.0 + (0.5 * x**2 if x > 0 else 0.02 * x**2)

    points = tune_to_the_end(loss, tune=Tune(seeds=(1, 2), start=4e-3, factor=2.0))
    rates = [rate for rate, _, _ in points]
    assert max(rates) <= 3.2e-2
    assert min(rates) >= 2e-4
    assert fit_rates(points).rate == pytest.approx(4e-3, rel=0.6)


@pytest.mark.parametrize(
    ("losses", "expected"),
    [
        # The fitted rate is a tried one, and the widest gap lies above the best rate.
        ({4.69e-3: 3.797, 5.93e-3: 3.795, 7.5e-3: 3.789, 1.2e-2: 4.037}, [9.49e-3]),
        # The widest gap is not beside the one that holds the fitted rate.
        ({2.81e-3: 4.568, 3.56e-3: 4.561, 4.5e-3: 4.597, 7.2e-3: 4.826}, [5.69e-3]),
    ],
)
def test_three_near_rates_and_a_far_one_do_not_end_a_tuning(losses, expected):
    """The far rate was fitted too, the gap to it was overlooked, and no page named the cell."""
    tune = TUNE.model_copy(update={"factor": 1.6})
    points = [(rate, seed, loss + 0.001 * seed) for rate, loss in losses.items() for seed in (1, 2)]
    assert not is_precise(fit_rates(points), stable_means(points), tune)
    assert next_rates(points, tune, start=sorted(losses)[2]) == expected
