import pytest

from oelm_lib import stats
from oelm_lib.view.tones import verdict_html


@pytest.mark.parametrize("verdict", [stats.PASS, stats.FAIL, stats.INCONCLUSIVE, stats.UNSTABLE])
def test_a_verdict_has_its_word_a_mark_and_a_colour(verdict):
    html = verdict_html(verdict)
    assert verdict in html and "color:var(--" in html
    assert any(mark in html for mark in "✓✗?")
    assert verdict_html("<b>") == "&lt;b&gt;"
