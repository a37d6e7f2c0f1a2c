"""Output of a training run: lines, and one progress line that is replaced in place."""

import math
import sys
import time
from collections.abc import Callable

REFRESH_SECONDS = 2.0
"""Time between two progress lines in a notebook or on a terminal."""
LOG_SECONDS = 60.0
"""Time between two progress lines in a file."""


class Console:
    """Prints lines, and progress as one notebook output, one terminal line, or lines in a file.

    Args:
        on_progress: Called after each progress line, with whether it is the last.
    """

    def __init__(self, on_progress: Callable[[bool], None] | None = None):
        self._on_progress = on_progress
        self._shown_at = -math.inf
        self._in_notebook = _kernel_is_running()
        self._on_terminal = sys.stdout.isatty()

    @property
    def _has_shown(self) -> bool:
        return self._shown_at > -math.inf

    def line(self, text: str) -> None:
        """Print a line that stays."""
        if self._on_terminal and self._has_shown:
            sys.stdout.write("\r\033[K")
        print(text, flush=True)

    def progress(self, text: str, last: bool = False) -> None:
        """Update the progress line, at most once per refresh interval; always if `last`."""
        refresh = REFRESH_SECONDS if self._in_notebook or self._on_terminal else LOG_SECONDS
        if time.monotonic() - self._shown_at < refresh and not last:
            return
        is_update = self._has_shown
        self._shown_at = time.monotonic()
        if self._in_notebook:
            from IPython.display import display

            name = f"progress-{id(self)}"
            display({"text/plain": text}, raw=True, display_id=name, update=is_update)
        elif self._on_terminal:
            sys.stdout.write("\r\033[K" + text + ("\n" if last else ""))
            sys.stdout.flush()
        else:
            print(text, flush=True)
        if self._on_progress:
            self._on_progress(last)


def _kernel_is_running() -> bool:
    """Whether this code runs in a Jupyter kernel."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython else None
    return shell is not None and hasattr(shell, "kernel")
