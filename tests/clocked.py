"""Fields of a run's record that a clock decides, and rows without them."""

CLOCKED = {
    "seconds",
    "tokens_per_s",
    "eval_seconds",
    "wall_seconds",
    "mean_step_seconds",
    "finished",
    "checksum",
}
"""Fields of rows and summaries that a clock decides."""


def without_clock(rows):
    """Rows without the fields that a clock decides."""
    return [{key: value for key, value in row.items() if key not in CLOCKED} for row in rows]
