import pytest

from oelm_lib import stats
from oelm_lib.view.tones import verdict_html


@pytest.mark.parametrize(
    ("verdict", "mark", "tone"),
    [
        (stats.PASS, "✓", "good"),
        (stats.YES, "✓", "good"),
        (stats.FAIL, "✗", "bad"),
        (stats.NO, "✗", "bad"),
        (stats.UNSTABLE, "✗", "bad"),
        (stats.INCONCLUSIVE, "?", "unsure"),
        (stats.NOT_SHOWN, "?", "unsure"),
        (stats.UNKNOWN, "?", "unsure"),
    ],
)
def test_a_verdict_has_its_word_a_mark_and_a_colour(verdict, mark, tone):
    html = verdict_html(verdict)
    assert f">{mark} {verdict}<" in html and f"color:var(--{tone}," in html


def test_any_other_word_is_escaped():
    assert verdict_html("<b>") == "&lt;b&gt;"
