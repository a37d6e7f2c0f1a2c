"""Lines of progress while a corpus is prepared."""

import contextlib


def print_line(text: str) -> None:
    """Print a line; an output that is closed or full does not end the preparation."""
    with contextlib.suppress(OSError, ValueError):  # ValueError: a closed file
        print(text.encode(errors="backslashreplace").decode(), flush=True)
