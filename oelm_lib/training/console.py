"""What a person sees while a run goes: lines, and one line that changes in place."""

import sys
import time
from collections.abc import Callable

REFRESH_SECONDS = 2.0


class Console:
    """Prints lines; shows progress in one notebook output, one terminal line, or a line a minute in a log."""

    def __init__(self):
        self.on_progress: Callable[[bool], None] | None = None
        self._shown = 0.0
        self._in_notebook = _kernel_is_running()
        self._on_terminal = sys.stdout.isatty()

    def line(self, text: str) -> None:
        """Print a line that stays."""
        if self._on_terminal and self._shown:
            sys.stdout.write("\r\033[K")
        print(text, flush=True)

    def progress(self, text: str, last: bool = False) -> None:
        """Replace the progress line, at most every REFRESH_SECONDS."""
        quiet = REFRESH_SECONDS if self._in_notebook or self._on_terminal else 60.0
        if time.monotonic() - self._shown < quiet and not last:
            return
        again, self._shown = bool(self._shown), time.monotonic()
        if self._in_notebook:
            from IPython.display import display

            display({"text/plain": text}, raw=True, display_id=f"progress-{id(self)}", update=again)
        elif self._on_terminal:
            sys.stdout.write("\r\033[K" + text + ("\n" if last else ""))
            sys.stdout.flush()
        else:
            print(text, flush=True)
        if self.on_progress:
            self.on_progress(last)


def _kernel_is_running() -> bool:
    """Whether this code runs in a Jupyter kernel."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython else None
    return shell is not None and hasattr(shell, "kernel")
