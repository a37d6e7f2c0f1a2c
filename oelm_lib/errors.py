"""The one exception for what a user can cause."""


class UserError(ValueError):
    """A mistake or circumstance the user can mend: one line, no traceback.

    The message says where, what was found, what is allowed and the next step.
    """

    def __init__(self, message: str):
        super().__init__(" ".join(message.split()))

    def _render_traceback_(self) -> list[str]:
        """IPython and ipykernel show these lines in place of a traceback."""
        return [f"{type(self).__name__}: {self}"]
