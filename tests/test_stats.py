import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from oelm_lib import stats as s

EXPERIMENTS = 2000
# Student 1908, "The probable error of a mean", Biometrika 6: hours of sleep gained with the second drug over the first.
STUDENT = [1.2, 2.4, 1.3, 1.3, 0.0, 1.0, 1.8, 0.8, 4.6, 1.4]
differences = st.lists(st.floats(-1, 1, width=16), min_size=2, max_size=6)


def test_paired_interval_matches_student_1908():
    interval = s.paired_interval(STUDENT)
    assert interval.mean == pytest.approx(1.58)
    assert (interval.low, interval.high) == pytest.approx((0.7001142, 2.4598858), abs=1e-7)
    assert s.p_value(STUDENT) == pytest.approx(0.002833, abs=1e-6)
    assert interval.n == 10


def test_interval_covers_the_truth_in_95_percent_of_experiments():
    draw = np.random.default_rng(0)
    truth = math.log(1.098)
    seeds = draw.integers(3, 6, EXPERIMENTS)
    intervals = [s.paired_interval(truth + 0.01 * draw.standard_normal(n)) for n in seeds]
    covered = np.mean([interval.low <= truth <= interval.high for interval in intervals])
    assert 0.93 <= covered <= 0.97


def test_holm_keeps_the_level_where_unadjusted_intervals_do_not():
    """Two arms lie exactly on the criterion, one far above: any verdict on the two is an error."""
    draw = np.random.default_rng(1)
    bound = math.log(s.CRITERION)
    truths = np.array([bound, bound, math.log(1.5)])
    wrong = {"holm": 0, "unadjusted": 0}
    for _ in range(EXPERIMENTS):
        baseline = 0.01 * draw.standard_normal(4)
        arms = [truth + 0.01 * draw.standard_normal(4) - baseline for truth in truths]
        confidences = s.holm([s.p_value(arm, bound) for arm in arms])
        decided = (s.PASS, s.FAIL)
        wrong["holm"] += any(
            s.verdict(s.paired_interval(arm, c)) in decided
            for arm, c in zip(arms[:2], confidences, strict=False)
        )
        wrong["unadjusted"] += any(s.verdict(s.paired_interval(arm)) in decided for arm in arms[:2])
    three_errors = 3 * math.sqrt(s.ALPHA * (1 - s.ALPHA) / EXPERIMENTS)
    assert wrong["holm"] / EXPERIMENTS <= s.ALPHA + three_errors
    assert wrong["unadjusted"] / EXPERIMENTS > s.ALPHA + three_errors


def test_holm_worked_example():
    """Four hypotheses, p = 0.01, 0.04, 0.03, 0.005 at 0.05: the two smallest are rejected, then it stops."""
    confidences = s.holm([0.01, 0.04, 0.03, 0.005])
    assert confidences == pytest.approx([1 - 0.05 / 3, 1 - 0.05 / 2, 1 - 0.05 / 2, 1 - 0.05 / 4])


def test_holm_gives_a_single_seed_no_share():
    assert s.holm([math.nan, 0.001, math.nan]) == pytest.approx([0.95, 0.95, 0.95])
    assert s.holm([]) == []


@given(st.lists(differences, min_size=1, max_size=4))
def test_interval_at_holms_confidence_excludes_exactly_what_holm_rejects(arms):
    p_values = [s.p_value(arm) for arm in arms]
    order, rejected = sorted(range(len(arms)), key=p_values.__getitem__), set()
    for rank, i in enumerate(order):
        if p_values[i] > s.ALPHA / (len(arms) - rank):
            break
        rejected.add(i)
    for i, confidence in enumerate(s.holm(p_values)):
        interval = s.paired_interval(arms[i], confidence)
        margin = min(abs(interval.low), abs(interval.high))
        if margin > 1e-9:
            assert (interval.low > 0 or interval.high < 0) == (i in rejected)


@given(differences, st.floats(-0.5, 0.5))
def test_interval_moves_with_a_shift_and_contains_its_mean(values, shift):
    interval, moved = (
        s.paired_interval(values),
        s.paired_interval([value + shift for value in values]),
    )
    assert interval.low - 1e-12 <= interval.mean <= interval.high + 1e-12
    assert (moved.low, moved.high) == pytest.approx(
        (interval.low + shift, interval.high + shift), abs=1e-9
    )


def test_verdict_follows_the_whole_interval():
    bound = math.log(1.05)

    def interval(low, high):
        return s.Interval((low + high) / 2, low, high, 3, 0.95)

    assert s.verdict(interval(bound - 0.2, bound - 0.1)) == s.PASS
    assert s.verdict(interval(bound + 0.1, bound + 0.2)) == s.FAIL
    assert s.verdict(interval(bound - 0.1, bound + 0.1)) == s.INCONCLUSIVE
    assert s.verdict(s.paired_interval([0.3])) == s.UNKNOWN
    assert s.verdict(s.paired_interval([])) == s.UNKNOWN
    assert s.verdict(interval(0.1, 0.2), criterion=1.3) == s.PASS


def test_equal_differences_leave_a_point():
    interval = s.paired_interval([0.25, 0.25])
    assert (interval.low, interval.high) == (0.25, 0.25)
    assert s.p_value([0.25, 0.25]) == 0
    assert s.p_value([0.25, 0.25], 0.25) == 1
    assert math.isnan(s.p_value([0.25]))


def test_equivalence_needs_the_whole_interval_inside_the_margin():
    assert s.equivalence(s.paired_interval([0.001, -0.001, 0.0005]))
    assert not s.equivalence(s.paired_interval([0.009, -0.009, 0.005]))
    assert not s.equivalence(s.paired_interval([0.02, 0.0201, 0.0199]))
    assert not s.equivalence(s.paired_interval([0.0]))


@pytest.mark.parametrize(
    "values", [[0.001, -0.001, 0.0005], [0.009, -0.009, 0.005], [0.02, 0.0201, 0.0199]]
)
def test_equivalence_p_is_where_the_interval_first_fits(values):
    p = s.equivalence_p(values)
    if p < 1:
        assert s.equivalence(s.paired_interval(values, 1 - p - 1e-6)) == (p < 1)
        assert not s.equivalence(s.paired_interval(values, min(1 - p + 1e-6, 1 - 1e-12)))
    else:
        assert abs(s.gap(np.mean(values))) > s.MARGIN


def test_bootstrap_agrees_with_the_delta_method():
    draw = np.random.default_rng(2)
    tokens = draw.integers(50, 400, 2000)
    nats = tokens * (0.1 + 0.05 * draw.standard_normal(2000))
    ratio = nats.sum() / tokens.sum()
    delta = math.sqrt(((nats - ratio * tokens) ** 2).sum()) / tokens.sum()
    error = s.bootstrap_documents(nats, tokens)
    assert error == pytest.approx(delta, rel=0.1)  # 1,000 resamples know an error to about 2 %
    assert error == s.bootstrap_documents(nats, tokens)
    assert math.isnan(s.bootstrap_documents(nats[:1], tokens[:1]))


def test_a_gap_beyond_exp_is_infinite():
    assert s.gap(1000.0) == math.inf and s.gap(-1000.0) == -1
