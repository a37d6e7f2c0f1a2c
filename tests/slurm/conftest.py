"""The Slurm tests run the same tiny experiments as those of the launcher."""

from tests.launch.conftest import tiny_env  # noqa: F401
