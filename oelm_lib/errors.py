"""The error that a user can cause, and the exit codes of `oelm`."""

DONE, FAILED, USER_ERROR, IN_USE, STOPPED = 0, 1, 2, 69, 75
"""Exit codes of `oelm`, as docs/file-formats.md lists them; 69 and 75 are those of sysexits.h."""


class UserError(ValueError):
    """A mistake or condition that the user can fix; shown as one line, without a traceback.

    The message says where, what was found, what is allowed and the next step.

    Attributes:
        exit_code: Exit code of the command that ends with this error.
    """

    exit_code = USER_ERROR

    def __init__(self, message: str):
        super().__init__(" ".join(message.split()))

    def _render_traceback_(self) -> list[str]:
        """IPython and ipykernel show these lines in place of a traceback."""
        return [f"{type(self).__name__}: {self}"]
