"""A lock for the tests of locks."""

import pytest

from oelm_lib.runs.lock import RunLock


@pytest.fixture
def own(tmp_path):
    """This process' lock of the test's folder, released at the end."""
    own = RunLock(tmp_path)
    yield own
    own.release()
