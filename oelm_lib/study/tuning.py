"""Tune a learning rate: fit a parabola over log2 of the rate, and name the rates to try next.

The losses of a cell are modelled as a_seed + b x + c x^2 with x = log2(rate), least squares over
all seeds and the rates near the best one. The minimum is at x = -b / 2c; its 95 % interval is
Fieller's (1954, J. R. Stat. Soc. B 16), exact for a parabola with normal noise.
"""

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from oelm_lib.study.cell import rounded_rate
from oelm_lib.study.schema import Tune

NEAR = 0.1
"""Nats above the best rate's mean loss up to which a rate is near the minimum.

Farther from it the loss is no parabola, least of all at high rates, where training gets unstable.
"""
FEWEST, WINDOW = 4, 5
"""Fewest rates near the minimum with which tuning may end, and most rates that a fit uses."""
NARROWEST = 0.6
"""Distance between two tried rates, as a power of the factor, in which no other rate is tried."""
UNSTABLE_SPREAD = 0.2
"""Nats between the seeds of one rate above which the rate counts as unstable.

Near the edge of stability one seed blows up and another does not.
"""
INTERIOR, EDGE, NO_STABLE_RATE = "interior", "edge", "no stable rate"
Point = tuple[float, int, float | None]
"""Learning rate, seed, validation loss in nats; None: the run diverged."""


@dataclass(frozen=True)
class Fit:
    """The result of tuning a cell."""

    state: str
    """INTERIOR; EDGE: the minimum is not between tried rates; or NO_STABLE_RATE."""
    rate: float | None
    """Fitted rate; at an edge the best rate tried; None where no rate is stable."""
    low: float = math.nan
    """Lower end of the 95 % interval of the fitted rate; nan: unbounded."""
    high: float = math.nan
    loss: float = math.nan
    """Fitted loss at the minimum, or at an edge that of the best rate; mean over seeds, in nats."""
    error: float = math.nan
    """Loss, in nats, that one standard error of the fitted rate costs."""
    curvature: float = math.nan
    """Loss, in nats, that twice or half the fitted rate costs."""

    def cost(self, rate: float) -> float:
        """Return the loss, in nats, that another rate costs; 0 without an interior minimum."""
        if self.state != INTERIOR:
            return 0.0
        return self.curvature * math.log2(rate / self.rate) ** 2


def fit_rates(points: Sequence[Point]) -> Fit:
    """Fit the minimum over the learning rate to all runs of a cell.

    Args:
        points: Runs, every seed at every rate.
    """
    stable = stable_means(points)
    if not stable:
        return Fit(NO_STABLE_RATE, None)
    best = min(stable, key=stable.get)
    at_edge = Fit(EDGE, best, loss=stable[best])
    rates = _rates_to_fit(stable)
    used = [point for point in points if point[0] in rates]
    degrees = len(used) - len({seed for _, seed, _ in used}) - 2
    if len(rates) < 3 or degrees < 1:
        return at_edge
    parabola = _fit_parabola(used, degrees)
    if parabola.c <= 0:
        return at_edge
    middle, turn = parabola.middle, parabola.turn
    if not math.log2(min(stable)) < middle + turn < math.log2(max(stable)):
        return at_edge
    low, high = _fieller(parabola, degrees)
    return Fit(
        state=INTERIOR,
        rate=rounded_rate(2 ** (middle + turn)),
        low=2 ** (middle + low),
        high=2 ** (middle + high),
        loss=parabola.a + parabola.b * turn + parabola.c * turn**2,
        # An error e of the minimum costs c e^2, and e is that of the slope there over 2 c.
        error=parabola.slope_variance(turn) / (4 * parabola.c),
        curvature=parabola.c,
    )


def stable_means(points: Sequence[Point]) -> dict[float, float]:
    """Return rate -> mean loss, for rates at which no seed diverged and all seeds agree."""
    losses: dict[float, list[float | None]] = {}
    for rate, _, loss in points:
        losses.setdefault(rate, []).append(loss)
    return {
        rate: float(np.mean(by_seed))
        for rate, by_seed in losses.items()
        if None not in by_seed and max(by_seed) - min(by_seed) <= UNSTABLE_SPREAD
    }


def _near(stable: dict[float, float]) -> list[float]:
    """Return the rates that cost at most NEAR more than the best one."""
    most = min(stable.values()) + NEAR
    return [rate for rate, loss in stable.items() if loss <= most]


def _rates_to_fit(stable: dict[float, float]) -> list[float]:
    """Return the near rates, or the FEWEST around the best where fewer are near; at most WINDOW."""
    best, near = min(stable, key=stable.get), _near(stable)
    rates, most = (near, WINDOW) if len(near) >= FEWEST else (stable, FEWEST)
    return sorted(rates, key=lambda rate: abs(math.log2(rate / best)))[:most]


@dataclass(frozen=True)
class _Parabola:
    """Loss = a + b (x - middle) + c (x - middle)^2, mean over seeds, x = log2(rate)."""

    a: float
    b: float
    c: float
    middle: float
    covariance: np.ndarray
    """Of b and c."""

    @property
    def turn(self) -> float:
        """Distance of the minimum from the middle."""
        return -self.b / (2 * self.c)

    def slope_variance(self, x: float) -> float:
        """Return the variance of the slope b + 2 c x at a distance x from the middle."""
        variances = self.covariance
        return variances[0, 0] + 4 * x * variances[0, 1] + 4 * x**2 * variances[1, 1]


def _fit_parabola(points: Sequence[Point], degrees: int) -> _Parabola:
    """Fit a parabola with an offset for each seed by least squares."""
    x = np.array([math.log2(rate) for rate, _, _ in points])
    losses = np.array([loss for _, _, loss in points])
    seeds = sorted({seed for _, seed, _ in points})
    one_hot = np.array([[point[1] == seed for seed in seeds] for point in points], dtype=float)
    middle = x.mean()
    design = np.column_stack([one_hot, x - middle, (x - middle) ** 2])
    solution, *_ = np.linalg.lstsq(design, losses, rcond=None)
    variance = float(np.sum((losses - design @ solution) ** 2)) / degrees
    covariance = variance * np.linalg.inv(design.T @ design)[-2:, -2:]
    offsets, b, c = solution[:-2], float(solution[-2]), float(solution[-1])
    return _Parabola(float(offsets.mean()), b, c, middle, covariance)


def first_rates(tune: Tune, start: float) -> list[float]:
    """Return the three rates that every tuning begins with."""
    return [rounded_rate(start * tune.factor**power) for power in (-1, 0, 1)]


def next_rates(points: Sequence[Point], tune: Tune, start: float) -> list[float]:
    """Return the rates to try next, none where tuning has ended.

    Tuning ends where FEWEST rates are near and the fitted minimum is precise: it and its interval
    lie between tried rates, and its error is at most `tune.error`; or where `tune.most_rates` were
    tried. Until then a rate is added by `tune.factor` towards the minimum; beside a rate that is
    not stable the next one halves the distance. Where that rate would not be near, or WINDOW rates
    are, the widest gap at the minimum is halved.

    Args:
        points: All runs of the cell so far, every seed at every rate.
        start: First rate.
    """
    tried = sorted({rate for rate, _, _ in points})
    if missing := [rate for rate in first_rates(tune, start) if rate not in tried]:
        return missing
    if len(tried) >= tune.most_rates:
        return []
    stable = stable_means(points)
    if not stable:
        return [rounded_rate(tried[0] / tune.factor)]
    fit, near = fit_rates(points), _near(stable)
    if is_precise(fit, stable, tune):
        return []
    side = _side(stable, fit)
    outermost = max(stable) if side > 0 else min(stable)
    beyond = rounded_rate(outermost * tune.factor**side)
    if fit.state == INTERIOR and (len(near) >= WINDOW or fit.cost(beyond) > NEAR):
        return _middle_of_widest_gap(tried, near, fit.rate, tune.factor)
    unstable = [rate for rate in tried if (rate - outermost) * side > 0]
    if not unstable:
        return [beyond]
    nearest = min(unstable, key=lambda rate: abs(rate - outermost))
    if abs(math.log(nearest / outermost)) < NARROWEST * math.log(tune.factor):
        return []
    return [rounded_rate(math.sqrt(outermost * nearest))]


def is_precise(fit: Fit, stable: dict[float, float], tune: Tune) -> bool:
    """Return whether FEWEST rates are near and the minimum is known: as `next_rates` asks."""
    if len(_near(stable)) < FEWEST or fit.state != INTERIOR or fit.error > tune.error:
        return False
    return min(stable) <= fit.low and fit.high <= max(stable)


def _side(stable: dict[float, float], fit: Fit) -> int:
    """Return 1 where a higher rate is to be tried, -1 where a lower one is.

    Around an interior minimum that is the side with fewer rates.
    """
    rates = sorted(stable)
    best = rates.index(min(stable, key=stable.get))
    if best == 0:
        return -1
    if best == len(rates) - 1:
        return 1
    if fit.state == INTERIOR:
        below, above = best, len(rates) - 1 - best
        return -1 if below <= above else 1
    return -1 if stable[rates[0]] < stable[rates[-1]] else 1


def _middle_of_widest_gap(
    tried: list[float], near: list[float], fitted: float, factor: float
) -> list[float]:
    """Return the middle of the widest gap beside a near rate; none where all are narrow.

    Of gaps that are equally wide, the one nearest to the fitted rate is halved.
    """
    gaps = [gap for gap in itertools.pairwise(tried) if set(gap) & set(near)]
    widest = max(high / low for low, high in gaps)
    if math.log(widest) < NARROWEST * math.log(factor):
        return []
    # Rates are rounded, so gaps that are equally wide differ by their last digit.
    middles = [math.sqrt(low * high) for low, high in gaps if high / low > 0.98 * widest]
    return [rounded_rate(min(middles, key=lambda rate: abs(math.log(rate / fitted))))]


def _fieller(parabola: _Parabola, degrees: int) -> tuple[float, float]:
    """Return the 95 % interval of the minimum as distances from the middle; nan: unbounded."""
    from scipy.special import stdtrit

    b, c, covariance = parabola.b, parabola.c, parabola.covariance
    t2 = float(stdtrit(degrees, 0.975)) ** 2
    # All x with (b + 2 c x)^2 <= t^2 var(b + 2 c x), a quadratic p x^2 + q x + r <= 0.
    p = 4 * (c**2 - t2 * covariance[1, 1])
    q = 4 * (b * c - t2 * covariance[0, 1])
    r = b**2 - t2 * covariance[0, 0]
    discriminant = q**2 - 4 * p * r
    if p <= 0 or discriminant < 0:
        return math.nan, math.nan
    root = math.sqrt(discriminant)
    return (-q - root) / (2 * p), (-q + root) / (2 * p)
