"""A real JupyterLab on loopback, driven by Chromium."""

import contextlib
import os
import re
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

from oelm_lib.config import ROOT
from tests.browser import open_browser

START_SECONDS = 90
RUN_SECONDS = 240
ALL_RUN = """() => {
    const cells = document.querySelectorAll('.jp-Notebook .jp-CodeCell');
    const prompts = [...cells].map(cell => cell.querySelector('.jp-InputPrompt'));
    return prompts.length > 0 && prompts.every(p => /\\[\\d+\\]/.test(p.textContent));
}"""
"""Whether every code cell has a number: it has run."""


@contextlib.contextmanager
def open_lab(folder: Path, notebook: str, **environment: str):
    """Yield a page with a copy of notebooks/<notebook>.ipynb open in JupyterLab.

    Args:
        folder: A fresh folder: Lab saves what it runs, so it gets a copy.
        environment: Variables of the server and its kernels, e.g. OELM_OUTPUTS.
    """
    copies = folder / "notebooks"
    copies.mkdir()
    shutil.copy(ROOT / "notebooks" / f"{notebook}.ipynb", copies)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    address = f"http://127.0.0.1:{port}"
    command = [
        sys.executable,
        "-m",
        "jupyterlab",
        "--no-browser",
        "--ip=127.0.0.1",
        f"--port={port}",
        "--allow-root",
    ]
    command += [
        f"--ServerApp.root_dir={copies}",
        "--IdentityProvider.token=lab-test",
        "--LabApp.news_url=",
    ]
    isolated = {f"JUPYTER_{name}_DIR": str(folder / name) for name in ("CONFIG", "DATA", "RUNTIME")}
    with open(folder / "lab.log", "wb") as log:
        server = subprocess.Popen(
            command,
            stdout=log,
            stderr=log,
            env=os.environ | isolated | environment,
            start_new_session=True,
        )
    try:
        _wait(f"{address}/api?token=lab-test", server, folder / "lab.log")
        with open_browser(
            folder / "profile", offline=False, viewport={"width": 1400, "height": 1000}
        ) as context:
            page = context.new_page()
            page.goto(f"{address}/lab/tree/{notebook}.ipynb?token=lab-test")
            page.wait_for_selector(".jp-Notebook .jp-Cell", timeout=1000 * START_SECONDS)
            yield page
    finally:
        server.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            server.wait(20)
        server.kill()


def run_all(page) -> None:
    """Run all cells from the menu and wait until the last one has ended."""
    # Before the kernel answers, the menu's click would end in a dialog that asks for one.
    page.get_by_text("| Idle").first.wait_for(timeout=1000 * START_SECONDS)
    page.get_by_role("menuitem", name="Run", exact=True).click()
    page.get_by_text("Run All Cells", exact=True).click()
    page.wait_for_function(ALL_RUN, timeout=1000 * RUN_SECONDS)


def restart_and_run_all(page) -> None:
    """Restart the kernel from the menu, run all cells, and wait until the last one has ended."""
    page.get_by_role("menuitem", name="Kernel", exact=True).click()
    page.get_by_text("Restart Kernel and Run All Cells").click()
    page.locator(".jp-Dialog button.jp-mod-accept").click()
    page.wait_for_function(f"() => !({ALL_RUN})()", timeout=1000 * START_SECONDS)
    page.wait_for_function(ALL_RUN, timeout=1000 * RUN_SECONDS)


def field(page, label: str):
    """Return the input, choice or text area of the widget with this description."""
    holder = page.locator(".jupyter-widgets").filter(
        has=page.locator(f"xpath=./label[normalize-space()='{label}']")
    )
    return holder.locator("input, select, textarea")


def choose(page, label: str, start: str) -> None:
    """Choose the option of a widget whose text starts with these characters."""
    choice = field(page, label)
    option = choice.locator("option").filter(has_text=re.compile(f"^{re.escape(start)}")).first
    option.wait_for(state="attached", timeout=30_000)
    choice.select_option(label=option.text_content())


def _wait(url: str, server: subprocess.Popen, log: Path) -> None:
    end = time.monotonic() + START_SECONDS
    while time.monotonic() < end and server.poll() is None:
        with contextlib.suppress(OSError), urllib.request.urlopen(url, timeout=2):
            return
        time.sleep(0.3)
    raise AssertionError(f"JupyterLab did not start: {log.read_text()[-2000:]}")
