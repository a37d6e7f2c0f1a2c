import pytest

from tests.analysis import runs_factory


@pytest.fixture
def demo(tmp_path):
    """An outputs folder with DEMO-01..04, three seeds each."""
    runs_factory.make_demo(tmp_path)
    return tmp_path
