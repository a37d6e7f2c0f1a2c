"""Fixtures of the tests that drive an exported page; each file makes its own `page_path`."""

import pytest

from tests.browser import open_browser, open_page


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    with open_browser(tmp_path_factory.mktemp("profile"), accept_downloads=True) as context:
        yield context


@pytest.fixture
def page(browser, page_path):
    """A page of this test's own."""
    page = open_page(browser, page_path)
    yield page
    page.close()
