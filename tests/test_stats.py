import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats as scipy_stats

from oelm_lib import stats as s
from oelm_lib.view.gaps import seeds_text

# Student 1908, "The probable error of a mean", Biometrika 6: hours of sleep gained with the second
# drug over the first.
STUDENT = [1.2, 2.4, 1.3, 1.3, 0.0, 1.0, 1.8, 0.8, 4.6, 1.4]
EXPERIMENTS = 20_000
SPREAD = 0.01
differences = st.lists(st.floats(-1, 1, width=16), min_size=2, max_size=6)


def bounds_of(samples, k):
    """Vectorised paired_interval: (experiments, n) -> low, high; tested against it below."""
    n = samples.shape[-1]
    half = scipy_stats.t.ppf(1 - s.ALPHA / k / 2, n - 1) * samples.std(-1, ddof=1) / math.sqrt(n)
    return samples.mean(-1) - half, samples.mean(-1) + half


def test_interval_matches_student_1908():
    interval = s.paired_interval(STUDENT)
    assert interval.mean == pytest.approx(1.58)
    assert (interval.low, interval.high) == pytest.approx((0.7001142, 2.4598858), abs=1e-7)
    assert (interval.n, interval.k, interval.confidence) == (10, 1, 0.95)
    assert interval.sd == pytest.approx(np.std(STUDENT, ddof=1))


@pytest.mark.filterwarnings("ignore:Precision loss")  # scipy, of values that are nearly equal
@given(differences, st.integers(1, 8))
def test_interval_equals_scipy_at_the_bonferroni_level(values, k):
    interval = s.paired_interval(values, k)
    found = scipy_stats.ttest_1samp(values, 0).confidence_interval(1 - 0.05 / k)
    if np.ptp(values) > 1e-3:
        assert (interval.low, interval.high) == pytest.approx(tuple(found), abs=1e-9)
    assert interval.confidence == 1 - 0.05 / k
    low, high = bounds_of(np.array([values]), k)
    assert (interval.low, interval.high) == pytest.approx((low[0], high[0]), abs=1e-9)


def test_gaps_are_perplexity_ratios_minus_one():
    interval = s.paired_interval([0.01, 0.03])
    assert interval.gap == pytest.approx(math.exp(0.02) - 1)
    assert interval.gap_low == pytest.approx(math.exp(interval.low) - 1)
    assert interval.gap_high == pytest.approx(math.exp(interval.high) - 1)
    assert s.gap(800.0) == math.inf


@pytest.mark.parametrize("k", [1, 3, 6])
@pytest.mark.parametrize("n", [3, 8])
def test_joint_coverage_of_a_family_is_95_percent(k, n):
    """The k arms share one baseline, so their differences are correlated, as in a comparison."""
    draw = np.random.default_rng(100 * k + n)
    baseline = draw.standard_normal((EXPERIMENTS, 1, n))
    low, high = bounds_of(draw.standard_normal((EXPERIMENTS, k, n)) - baseline, k)
    covered = ((low <= 0) & (high >= 0)).all(axis=1).mean()
    assert covered >= 0.945


@pytest.mark.parametrize("k", [1, 3, 6])
@pytest.mark.parametrize("claim", ["at most", "within"])
def test_verdicts_at_the_bound_err_in_at_most_5_percent_of_families(k, claim):
    bound = math.log1p(0.05) if claim == "at most" else math.log1p(0.01)
    draw = np.random.default_rng(k)
    baseline = draw.standard_normal((EXPERIMENTS, 1, 8))
    noise = SPREAD * (draw.standard_normal((EXPERIMENTS, k, 8)) - baseline)
    lows, highs = bounds_of(bound + noise, k)
    judge, limit = (s.at_most, 0.05) if claim == "at most" else (s.equal_within, 0.01)
    example = s.paired_interval(bound + noise[0, 0], k)
    decided = 0
    for family in range(0, EXPERIMENTS, 10):
        judged = [
            judge(replace(example, low=low, high=high), limit)
            for low, high in zip(lows[family], highs[family], strict=True)
        ]
        decided += any(verdict in (s.PASS, s.FAIL, s.YES, s.NO) for verdict in judged)
    experiments = EXPERIMENTS / 10
    assert decided / experiments <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / experiments)


@pytest.mark.parametrize(
    ("mean", "spread", "verdict"),
    [(0.02, 0.001, s.PASS), (0.08, 0.001, s.FAIL), (math.log(1.05), 0.01, s.INCONCLUSIVE)],
)
def test_at_most_is_read_off_the_whole_interval(mean, spread, verdict):
    interval = s.paired_interval(mean + spread * np.array([-1, 0, 1, 0.5, -0.5]))
    assert s.at_most(interval, 0.05) == verdict


@pytest.mark.parametrize(
    ("mean", "verdict"), [(0.0, s.YES), (0.03, s.NO), (-0.03, s.NO), (0.0098, s.NOT_SHOWN)]
)
def test_equality_is_two_sided(mean, verdict):
    interval = s.paired_interval(mean + 0.001 * np.array([-1, 0, 1, 0.5, -0.5]))
    assert s.equal_within(interval, 0.01) == verdict


def test_a_much_better_arm_passes_at_most_but_is_not_equal():
    interval = s.paired_interval([-0.2, -0.21, -0.19])
    assert s.at_most(interval, 0.01) == s.PASS
    assert s.equal_within(interval, 0.01) == s.NO


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("values", [[], [0.1]])
def test_fewer_than_two_seeds_have_an_unknown_interval(values):
    interval = s.paired_interval(values)
    assert not interval.known
    assert s.at_most(interval, 0.05) == s.UNKNOWN
    assert s.equal_within(interval, 0.01) == s.UNKNOWN
    assert seeds_text(interval, s.bounds_at_most(0.05)) == ""


@pytest.mark.parametrize("lost", [None, math.nan, math.inf])
@pytest.mark.parametrize("side", ["arm", "baseline"])
def test_a_diverged_seed_on_either_side_makes_the_verdict_unstable(lost, side):
    """The seeds that survived passed before."""
    losses = {"arm": {1: 3.0, 2: 3.01, 3: 3.0}, "baseline": {1: 3.0, 2: 3.0, 3: 3.01}}
    losses[side][2] = lost
    interval = s.paired_interval(s.paired_differences(losses["arm"], losses["baseline"]))
    assert (interval.n, interval.failed) == (2, 1)
    assert s.at_most(interval, 0.5) == s.UNSTABLE
    assert s.equal_within(interval, 0.5) == s.UNSTABLE


def test_differences_pair_shared_seeds_only():
    paired = s.paired_differences({1: 2.0, 2: 3.0, 9: 1.0}, {2: 1.0, 1: 1.5, 7: 0.0})
    assert paired == [0.5, 2.0]


def test_power_agrees_with_simulation():
    draw = np.random.default_rng(5)
    samples = 0.003 + 0.009 * draw.standard_normal((EXPERIMENTS, 16))
    low, high = bounds_of(samples, 3)
    for bounds in (s.bounds_within(0.01), s.bounds_at_most(0.01), (math.log1p(-0.01), math.inf)):
        inside = ((low >= bounds[0]) & (high <= bounds[1])).mean()
        assert s.power(0.003, 0.009, 16, bounds, k=3) == pytest.approx(inside, abs=0.012)


def test_power_agrees_with_the_noncentral_t():
    ncp = (math.log1p(0.05) - 0.04) / (0.012 / math.sqrt(8))
    expected = scipy_stats.nct.sf(scipy_stats.t.ppf(0.975, 7), 7, ncp)
    assert s.power(0.04, 0.012, 8, s.bounds_at_most(0.05)) == pytest.approx(expected, abs=2e-3)


def test_power_without_spread_is_certain():
    low, high = bounds = s.bounds_within(0.01)
    for difference, chance in ((0.0, 1), (low, 1), (high, 1), (2 * low, 0), (2 * high, 0)):
        assert s.power(difference, 0.0, 5, bounds) == chance


def test_deciding_seeds_have_the_power_they_promise():
    interval = s.paired_interval([0.03, 0.06, 0.02, 0.07, 0.03])
    bounds = s.bounds_at_most(0.05)
    few, many = s.deciding_seeds(interval, bounds)
    assert 5 < few < many
    for tail, seeds in ((0.16, few), (0.84, many)):
        sd = interval.sd * math.sqrt(4 / scipy_stats.chi2.isf(tail, 4))
        assert s.power(interval.mean, sd, seeds, bounds) >= 0.8
        assert s.power(interval.mean, sd, seeds - 1, bounds) < 0.8


def test_no_number_of_seeds_decides_a_gap_on_the_bound():
    """Before, a number of seeds was given for a difference that was assumed to be 0."""
    values = math.log(1.05) + 0.01 * np.array([-1, 0, 1, 0.5, -0.5])
    interval = s.paired_interval(values)
    assert s.deciding_seeds(interval, s.bounds_at_most(0.05)) is None
    assert "no number of seeds" in seeds_text(interval, s.bounds_at_most(0.05))


def test_no_seeds_are_proposed_where_documents_leave_the_claim_open():
    interval = s.paired_interval([0.03, 0.035, 0.04, 0.045])
    assert s.at_most(interval, 0.05) == s.PASS
    wider = s.with_document_error(interval, 0.01)
    assert s.at_most(wider, 0.05) == s.INCONCLUSIVE
    assert "more documents are needed" in seeds_text(wider, s.bounds_at_most(0.05))


def test_an_error_over_documents_that_more_seeds_make_the_larger_one_counts_beforehand():
    """A page proposed 42 to 72 seeds, with which the interval would have held both errors."""
    spread = np.tile([-1.0, 1.0], 12)
    values = 0.0064 + 0.0082 * spread / spread.std(ddof=1)
    interval = s.with_document_error(s.paired_interval(values, k=4), 0.0013)
    assert not interval.includes_documents
    assert s.at_most(interval, 0.01) == s.INCONCLUSIVE
    for sd in (interval.sd * 0.8, interval.sd, interval.sd * 1.2):
        chance = s.power(0.0064, sd, 10_000, s.bounds_at_most(0.01), 4, 0.0013)
        assert chance < 0.8
    assert s.deciding_seeds(interval, s.bounds_at_most(0.01)) is None
    assert "more documents are needed" in seeds_text(interval, s.bounds_at_most(0.01))
    assert s.deciding_seeds(s.paired_interval(values, k=4), s.bounds_at_most(0.01)) is not None


def test_few_seeds_ask_for_seeds_though_the_interval_includes_documents():
    """With two seeds the t quantile is 13: more documents would not help."""
    interval = s.with_document_error(s.paired_interval([0.018, 0.022]), 0.003)
    assert interval.includes_documents and s.at_most(interval, 0.05) == s.INCONCLUSIVE
    assert "seeds would decide" in seeds_text(interval, s.bounds_at_most(0.05))


def test_power_with_documents_agrees_with_simulation():
    rng, n, gap, sd, error = np.random.default_rng(1), 4, 0.03, 0.004, 0.005
    passes = []
    for _ in range(2000):
        drawn = rng.normal(gap + rng.normal(0, error), sd, n)
        interval = s.with_document_error(s.paired_interval(drawn), error)
        passes.append(s.at_most(interval, 0.05) == s.PASS)
    chance = s.power(gap, sd, n, s.bounds_at_most(0.05), document_error=error)
    assert chance == pytest.approx(np.mean(passes), abs=0.04)


def test_no_seeds_are_proposed_where_the_claim_is_decided():
    """Before, a gap of +22.85 %, which excludes equality, was given seeds to show it."""
    interval = s.paired_interval(math.log(1.2285) + 0.01 * np.array([-1, 0, 1, 0.5, -0.5]))
    assert s.deciding_seeds(interval, s.bounds_within(0.01)) is None
    assert seeds_text(interval, s.bounds_within(0.01)) == ""


@pytest.mark.parametrize("side", [1, -1])
def test_a_claim_about_equality_outside_the_margin_asks_for_seeds_that_show_it(side):
    interval = s.paired_interval(side * (0.02 + 0.015 * np.array([-1, 0, 1, 0.5, -0.5])))
    few, many = s.deciding_seeds(interval, s.bounds_within(0.01))
    outside = sorted((math.log1p(side * 0.01), side * math.inf))
    for tail, seeds in ((0.16, few), (0.84, many)):
        sd = interval.sd * math.sqrt(4 / scipy_stats.chi2.isf(tail, 4))
        assert s.power(interval.mean, sd, seeds, outside) >= 0.8
        assert s.power(interval.mean, sd, seeds - 1, outside) < 0.8


def test_document_error_widens_the_interval_only_where_it_matters():
    """Before, an interval over seeds was read as one over texts."""
    interval = s.paired_interval([0.010, 0.012, 0.008, 0.011])
    standard_error = interval.sd / 2
    same = s.with_document_error(interval, 0.5 * standard_error)
    assert same == replace(interval, document_error=0.5 * standard_error)
    wide = s.with_document_error(interval, standard_error)
    assert wide.document_error == standard_error and wide.includes_documents
    assert wide.high - wide.low == pytest.approx(math.sqrt(2) * (interval.high - interval.low))
    assert s.with_document_error(interval, math.nan) == interval


def documents(nats, tokens):
    """The documents of one seed whose losses differ by these nats."""
    return [({"nats": 2 * nats, "tokens": tokens}, {"nats": nats, "tokens": tokens})]


def test_documents_of_one_length_give_the_standard_error_of_a_mean():
    draw = np.random.default_rng(3)
    tokens = np.full(400, 50)
    nats = 50 * 0.2 * draw.standard_normal(400)
    error = s.document_error(documents(nats, tokens))
    assert error == pytest.approx(np.std(nats / 50, ddof=1) / math.sqrt(400))
    assert s.document_error(documents(nats[:2], tokens[:2])) > 0


def test_error_over_documents_agrees_with_a_bootstrap():
    draw = np.random.default_rng(5)
    tokens = draw.integers(20, 600, 300)
    nats = tokens * draw.normal(0.02, 0.1, 300)
    picks = draw.integers(300, size=(2000, 300))
    resampled = nats[picks].sum(axis=1) / tokens[picks].sum(axis=1)
    assert s.document_error(documents(nats, tokens)) == pytest.approx(resampled.std(), rel=0.06)


def test_documents_that_are_not_the_same_have_no_error():
    one, other = documents(np.ones(3), np.full(3, 50)), documents(np.ones(3), np.full(3, 51))
    assert s.document_error(2 * one) == 0
    for pairs in ([], [({}, {})], [*one, ({}, {})], [*one, *other]):
        assert math.isnan(s.document_error(pairs))
    assert math.isnan(s.document_error(documents(np.ones(1), np.full(1, 50))))
    assert math.isnan(s.document_error(documents(np.zeros(3), np.zeros(3, int))))
