"""Debian's Chromium, driven offline by playwright."""

import contextlib
import shutil
from pathlib import Path

import pytest

FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


@contextlib.contextmanager
def open_browser(profile: Path, *, offline: bool = True, **options):
    """Yield a playwright context; skip the test where Chromium or playwright is missing.

    Args:
        profile: A fresh folder for the user's data.
        options: Of launch_persistent_context, e.g. color_scheme="dark", viewport={...}.
    """
    playwright = pytest.importorskip(
        "playwright.sync_api", reason="playwright is not installed (extra: dev)"
    )
    chromium = shutil.which("chromium")
    if chromium is None:
        pytest.skip("chromium is not installed")
    with playwright.sync_playwright() as driver:
        context = driver.chromium.launch_persistent_context(
            profile, executable_path=chromium, args=FLAGS, headless=True, offline=offline, **options
        )
        try:
            yield context
        finally:
            context.close()


def open_page(browser, page_path):
    """The page, drawn; `problems` collects its requests, errors and console lines."""
    page = browser.new_page()
    page.problems = []
    page.on("request", lambda request: page.problems.append(request.url))
    page.on("pageerror", lambda error: page.problems.append(str(error)))
    page.on("console", lambda message: page.problems.append(message.text))
    page.emulate_media(color_scheme="light")
    page.goto(page_path.as_uri())
    wait(page, "document.documentElement.dataset.ready === 'true'")
    return page


def wait(page, condition):
    """As wait_for_function, which the page's content security policy forbids."""
    for _ in range(300):
        if page.evaluate(condition):
            return
        page.wait_for_timeout(100)
    raise AssertionError(f"never true: {condition}")
