"""Perplexity of a loss; durations, bytes and counts as text."""

import math
import time


def perplexity(loss: float) -> float:
    """Return exp of a loss in nats; infinite where that overflows."""
    try:
        return math.exp(loss)
    except OverflowError:
        return math.inf


def counted(count: int, noun: str) -> str:
    """Return a number of things in words: 1 run, 3 runs."""
    return f"{count} {noun}{'s' * (count != 1)}"


def format_duration(seconds: float) -> str:
    """Return 4h 31m 27s, as in the log; leading parts that are 0 are left out."""
    whole = round(seconds)
    hours, minutes, rest = whole // 3600, whole // 60 % 60, whole % 60
    if hours:
        return f"{hours}h {minutes:02d}m {rest:02d}s"
    return f"{minutes}m {rest:02d}s" if minutes else f"{rest}s"


def format_bytes(count: float) -> str:
    """Return bytes as 1.4 GiB, 12.0 MiB or 3.1 KiB."""
    for unit, size in (("GiB", 2**30), ("MiB", 2**20)):
        if count >= size:
            return f"{count / size:,.1f} {unit}"
    return f"{count / 2**10:,.1f} KiB"


def format_millions(count: float) -> str:
    """Return a count in millions, to two digits and without the unit: 0.17, 1.1, 45, 410."""
    return significant(count / 1e6, 2)


def significant(value: float, digits: int) -> str:
    """Return a number rounded to so many digits, without an exponent below a million: 130."""
    return f"{float(f'{value:.{digits}g}'):,g}"


def format_eta(eta_seconds: list[float] | tuple[float, float] | None) -> str:
    """Return the range (low, high) in seconds as text with the clock time of its end.

    From 20 hours on, the weekday is added.
    """
    if not eta_seconds:
        return "ETA unknown"
    low, high = eta_seconds
    pattern = "%H:%M" if high < 20 * 3600 else "%a %H:%M"
    clock = time.strftime(pattern, time.localtime(time.time() + high))
    short, long = format_duration(low), format_duration(high)
    return f"ETA {long} ({clock})" if short == long else f"ETA {short} - {long} ({clock})"
