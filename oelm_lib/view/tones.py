"""The tones of verdicts and messages, good, bad and unsure: their marks and colours."""

from html import escape

from oelm_lib import stats
from oelm_lib.markup import Html

TONES = {
    stats.PASS: "good",
    stats.YES: "good",
    stats.FAIL: "bad",
    stats.NO: "bad",
    stats.UNSTABLE: "bad",
    stats.INCONCLUSIVE: "unsure",
    stats.NOT_SHOWN: "unsure",
    stats.UNKNOWN: "unsure",
}
"""Word of a verdict -> its tone."""
MARKS = {"good": "✓", "bad": "✗", "unsure": "?"}
"""A mark stands before each verdict, so that the colour is never alone."""
TONE_COLOURS = {"good": "#0a8060", "bad": "#d0342c", "unsure": "#a06a00"}
"""Where the page sets none of its own: contrast of at least 3 on white and on near-black."""


def verdict_html(verdict: str) -> Html:
    """Return a verdict as bold coloured HTML with a mark before it."""
    tone = TONES.get(verdict)
    if tone is None:
        return Html(escape(verdict))
    style = f"color:{tone_colour(tone)};font-weight:600;white-space:nowrap"
    return Html(f"<span class='{tone}' style='{style}'>{MARKS[tone]} {escape(verdict)}</span>")


def verdict_mark(verdict: str) -> str:
    """Return the mark of a verdict, where there is no room for its word."""
    return MARKS[TONES[verdict]]


def toned(text: str, tone: str, tag: str = "span") -> str:
    """Return text as an HTML element in the colour of a tone; the text is escaped."""
    return f"<{tag} style='color:{tone_colour(tone)}'>{escape(text)}</{tag}>"


def tone_colour(tone: str) -> str:
    """Return the CSS colour of a tone: that of the page or the theme, where it sets one."""
    return f"var(--{tone},{TONE_COLOURS[tone]})"
