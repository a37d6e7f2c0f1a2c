import pytest

from oelm_lib import stats
from oelm_lib.view.gaps import interval_text, percent


@pytest.mark.parametrize(
    ("differences", "text"),
    [([], "–"), ([0.03], "+3.0 %"), ([0.02, 0.04], "+3.0 % [−9.3, +17.0]")],
)
def test_an_interval_stands_in_brackets_behind_its_gap(differences, text):
    assert interval_text(stats.paired_interval(differences)) == text


def test_percent_has_a_sign():
    assert percent(0.0975) == "+9.75 %" and percent(-0.5, 1) == "−50.0 %"
