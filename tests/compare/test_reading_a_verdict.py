"""docs/reading-a-verdict.md says what the code does."""

import re

import pytest

from oelm_lib import stats
from oelm_lib.compare.verdict import CONFOUNDED, LIMIT, MARGIN, NOT_COMPARED
from oelm_lib.config import ROOT
from tests.docs import verdict_picture

PAGE = (ROOT / "docs" / "reading-a-verdict.md").read_text(encoding="utf-8")
CLAIMS = {
    "at most +5 %": stats.bounds_at_most(LIMIT),
    "equal within ±1 %": stats.bounds_within(MARGIN),
}


def test_the_picture_is_the_one_its_command_makes():
    kept = (ROOT / "docs" / "reading-a-verdict.svg").read_text(encoding="utf-8")
    assert kept == verdict_picture.example_svg()
    assert all(f"{arm}: " in kept for arm in verdict_picture.ARMS)


def test_the_arms_of_the_picture_have_the_verdicts_of_the_text():
    found = {}
    for arm, (mean, spread) in verdict_picture.ARMS.items():
        interval = stats.paired_interval((mean + spread * verdict_picture.CENTRED).tolist(), 4)
        found[arm] = (stats.at_most(interval, LIMIT), stats.equal_within(interval, MARGIN))
    assert found["A"] == (stats.PASS, stats.YES)
    assert found["B"] == (stats.PASS, stats.NO)
    assert found["C"][0] == stats.INCONCLUSIVE
    assert found["D"][0] == stats.FAIL


@pytest.mark.parametrize(
    "word",
    [
        stats.PASS,
        stats.FAIL,
        stats.INCONCLUSIVE,
        stats.UNKNOWN,
        stats.UNSTABLE,
        CONFOUNDED,
        NOT_COMPARED,
    ],
)
def test_every_verdict_is_explained(word):
    assert re.search(rf"^\| (?:[✓✗?] )?{word} \|", PAGE, re.MULTILINE)


def test_the_table_of_power_is_computed():
    header = re.search(r"^\| sd \| claim \|(.*)$", PAGE, re.MULTILINE).group(1)
    seeds = [int(number) for number in re.findall(r"\d+", header)]
    rows = re.findall(r"^\| (0\.\d+) \| ([^|]+) \| (.*) \|$", PAGE, re.MULTILINE)
    assert len(rows) == 6
    for sd, claim, cells in rows:
        expected = [f"{stats.power(0, float(sd), n, CLAIMS[claim]):.2f}" for n in seeds]
        assert cells.split(" | ") == expected
