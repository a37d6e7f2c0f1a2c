"""Perplexity, durations and ETAs as text."""

import math
import re

import pytest

from oelm_lib.units import format_duration, format_eta, format_millions, perplexity, significant


@pytest.mark.parametrize(
    ("value", "digits", "text"),
    [(100.4, 2, "100"), (0.4525, 2, "0.45"), (128.0, 2, "130"), (1234.5, 3, "1,230"), (2, 3, "2")],
)
def test_significant_digits_come_without_an_exponent(value, digits, text):
    assert significant(value, digits) == text


def test_perplexity_of_a_loss_beyond_exp_is_infinite():
    assert perplexity(0.0) == 1.0
    assert perplexity(1000.0) == math.inf
    assert perplexity(-1000.0) == 0.0
    assert math.isnan(perplexity(math.nan))


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(16287.72, "4h 31m 28s"), (0.4, "0s"), (59.6, "1m 00s"), (3600, "1h 00m 00s"), (65, "1m 05s")],
)
def test_durations_read_as_in_the_log(seconds, text):
    assert format_duration(seconds) == text


@pytest.mark.parametrize(
    ("count", "text"),
    [(166_912, "0.17"), (2_027_520, "2"), (44_896_768, "45"), (409_600_000, "410"), (5e9, "5,000")],
)
def test_counts_in_millions_have_two_digits_and_no_exponent(count, text):
    assert format_millions(count) == text


def test_an_eta_reads_as_a_range_with_the_clock_time_of_its_end():
    assert format_eta(None) == "ETA unknown"
    assert format_eta((60.0, 120.0)).startswith("ETA 1m 00s - 2m 00s (")


def test_an_eta_beyond_a_day_names_the_day():
    assert re.search(r"^ETA 30h 00m 00s \(\w+ \d\d:\d\d\)$", format_eta((108000, 108000)))
