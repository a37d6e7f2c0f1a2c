"""The picture of docs/reading-a-verdict.md: intervals with their verdicts, as an SVG.

python -m tests.docs.verdict_picture docs/reading-a-verdict.svg
"""

import sys
from html import escape
from pathlib import Path

import numpy as np

from oelm_lib import stats
from oelm_lib.compare.verdict import LIMIT
from oelm_lib.view.gaps import interval_text, percent
from oelm_lib.view.tones import MARKS, TONE_COLOURS, TONES

CENTRED = np.array([-1.4, -0.8, -0.5, -0.1, 0.1, 0.5, 0.8, 1.4])
"""Pattern of the seeds' differences around their mean."""
ARMS = {"A": (0.005, 0.004), "B": (0.030, 0.010), "C": (0.030, 0.035), "D": (0.095, 0.020)}
"""Made-up arms: mean difference and spread, in nats."""
WIDTH, ROW, LEFT, TOP = 720, 54, 36, 34
LOWEST, HIGHEST = -0.04, 0.14
INK = "#6f757b"
TEXT = "font-family='sans-serif' font-size='13'"


def example_svg() -> str:
    """Return the picture: made-up arms judged by the procedure of the comparison."""
    rows = []
    for place, (arm, (mean, spread)) in enumerate(ARMS.items()):
        interval = stats.paired_interval((mean + spread * CENTRED).tolist(), len(ARMS))
        rows.append(_row(TOP + ROW * place, arm, interval))
    bottom = TOP + ROW * len(ARMS)
    lines = [
        _line(_x(0), TOP - 8, _x(0), bottom, INK),
        _line(_x(LIMIT), TOP - 8, _x(LIMIT), bottom, INK, " stroke-dasharray='6 4'"),
        _text(_x(0) + 4, TOP - 14, "baseline"),
        _text(_x(LIMIT) + 4, TOP - 14, f"limit {percent(LIMIT, 0)}"),
        _text(LEFT, bottom + 18, "gap in perplexity to the baseline, with its interval"),
    ]
    size = f"width='{WIDTH}' height='{bottom + 30}' viewBox='0 0 {WIDTH} {bottom + 30}'"
    body = "\n".join([*lines, *rows])
    return f"<svg xmlns='http://www.w3.org/2000/svg' {size}>\n{body}\n</svg>\n"


def _row(top: float, arm: str, interval: stats.Interval) -> str:
    """Return one arm: its interval, its gap, and the verdict in words."""
    verdict = stats.at_most(interval, LIMIT)
    tone = TONES[verdict]
    colour, middle = TONE_COLOURS[tone], top + 36
    words = f"{arm}: {interval_text(interval)}  {MARKS[tone]} {verdict}"
    label = _text(_x(0.06), top + 20, words, colour)
    low, high = _x(interval.gap_low), _x(interval.gap_high)
    bar = _line(low, middle, high, middle, colour, " stroke-width='3'")
    ends = "".join(_line(x, middle - 6, x, middle + 6, colour) for x in (low, high))
    dot = f"<circle cx='{_x(interval.gap):.1f}' cy='{middle}' r='6' fill='{colour}'/>"
    return f"{label}\n{bar}{ends}{dot}"


def _x(gap: float) -> float:
    return LEFT + (gap - LOWEST) / (HIGHEST - LOWEST) * (WIDTH - 2 * LEFT)


def _line(x1: float, y1: float, x2: float, y2: float, colour: str, more: str = "") -> str:
    place = f"x1='{x1:.1f}' y1='{y1:.1f}' x2='{x2:.1f}' y2='{y2:.1f}'"
    return f"<line {place} stroke='{colour}'{more}/>"


def _text(x: float, y: float, words: str, colour: str = INK) -> str:
    return f"<text x='{x:.1f}' y='{y:.1f}' fill='{colour}' {TEXT}>{escape(words)}</text>"


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(example_svg(), encoding="utf-8")
