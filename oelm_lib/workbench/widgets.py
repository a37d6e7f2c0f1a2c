"""What the workbench's widgets share: layouts, labelled fields, and a line for the user."""

from collections.abc import Callable

import ipywidgets

from oelm_lib.errors import UserError
from oelm_lib.view.tones import toned

WRAP = ipywidgets.Layout(flex_flow="row wrap", align_items="center")
WIDE = ipywidgets.Layout(width="98%")


def text(
    description: str, value: str = "", placeholder: str = "", width: str = "20em"
) -> ipywidgets.Text:
    """Return a field for a line of text."""
    return ipywidgets.Text(
        value, description=description, placeholder=placeholder, layout={"width": width}
    )


class Message(ipywidgets.HTML):
    """One line for the user: what was done, or why it could not be; below it warnings."""

    def run(self, action: Callable[[], str]) -> None:
        """Do an action and show its lines, or why it failed."""
        try:
            line, *warnings = action().split("\n")
        except UserError as error:
            self.say(str(error), "bad")
            return
        except OSError as error:
            reason = error.strerror or error
            self.say(f"{error.filename or 'a file'}: {reason}; nothing was lost", "bad")
            return
        self.value = "<br>".join(
            [toned(line, "good", "b"), *(toned(part, "unsure", "b") for part in warnings)]
        )

    def say(self, line: str, tone: str = "good") -> None:
        """Show a line; `tone` is good, bad or unsure."""
        self.value = toned(line, tone, "b")
