"""A real JupyterLab on loopback, as `oelm lab` opens it, driven by Chromium."""

import contextlib
import json
import os
import re
import shutil
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from typing import Any

from oelm_lib.config import ROOT, read_yaml
from oelm_lib.yaml_text import dump_yaml
from tests.browser import open_browser
from tests.project_params import copy_params

TOKEN = "lab-test"
START_SECONDS = 180
RUN_SECONDS = 600
ALL_RUN = """() => {
    const cells = document.querySelectorAll('.jp-Notebook .jp-CodeCell');
    const prompts = [...cells].map(cell => cell.querySelector('.jp-InputPrompt'));
    return prompts.length > 0 && prompts.every(p => /\\[\\d+\\]/.test(p.textContent));
}"""
"""Whether every code cell has a number: it has run."""


OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}))
"""Reaches this machine also where the environment names a proxy."""


class Lab:
    """A JupyterLab that serves a checkout, and the browser that looks at it.

    Attributes:
        address: Its URL.
        context: Playwright's browser context.
    """

    def __init__(self, address: str, context):
        self.address, self.context = address, context

    def open(self, notebook: str, height: int = 1000):
        """Return a page with lab/<notebook>.ipynb open, alone in a workspace of its own."""
        page = self.context.new_page()
        page.set_default_timeout(1000 * START_SECONDS)
        page.set_viewport_size({"width": 1400, "height": height})
        workspace = f"{self.address}/lab/workspaces/{notebook}"
        page.goto(f"{workspace}/tree/lab/{notebook}.ipynb?token={TOKEN}")
        page.wait_for_selector(".jp-Notebook .jp-Cell")
        return page


def make_checkout(folder: Path, changes: dict[str, Any]) -> Path:
    """Copy the project into folder/checkout, with other values in the experiments of the demo.

    Args:
        changes: Dotted key -> value, for each of DEMO-01..04.
    """
    checkout = folder / "checkout"
    ignored = shutil.ignore_patterns("__pycache__")
    for name in ("oelm_lib", "notebooks"):
        shutil.copytree(ROOT / name, checkout / name, ignore=ignored)
    copy_params(checkout)
    shutil.copytree(ROOT / "reports" / "oelm", checkout / "reports" / "oelm")
    shutil.copy(ROOT / ".gitignore", checkout)
    for path in (checkout / "params").glob("DEMO-0[1-4].yaml"):
        plain = read_yaml(path)
        for key, value in changes.items():
            section, _, name = key.partition(".")
            plain.setdefault(section, {})[name] = value
        path.write_text(dump_yaml(plain))
    return checkout


@contextlib.contextmanager
def open_lab(checkout: Path, **environment: str):
    """Start `oelm lab` in a checkout of make_checkout, and a browser; yield a Lab.

    Args:
        environment: Variables of the server and its kernels, e.g. OELM_DATA.
    """
    folder = checkout.parent
    # It finds a free port itself and writes it down: another process may take one chosen here.
    command = [sys.executable, "-m", "oelm_lib.cli", "lab", "--no-browser", "--port=0"]
    command += ["--allow-root", f"--IdentityProvider.token={TOKEN}"]
    isolated = {f"JUPYTER_{name}_DIR": str(folder / name) for name in ("CONFIG", "DATA", "RUNTIME")}
    with open(folder / "lab.log", "wb") as log:
        server = subprocess.Popen(
            command,
            stdout=log,
            stderr=log,
            cwd=checkout,
            env=os.environ | isolated | {"PYTHONPATH": str(checkout)} | environment,
            start_new_session=True,
        )
    try:
        address = _address(server, folder / "RUNTIME", folder / "lab.log")
        with open_browser(folder / "profile", offline=False) as context:
            yield Lab(address, context)
    finally:
        server.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            server.wait(20)
        server.kill()


def start_all(page) -> None:
    """Choose Run All Cells in the menu."""
    # Before the kernel answers, the menu's click would end in a dialog that asks for one.
    page.get_by_text("| Idle").first.wait_for()
    page.get_by_role("menuitem", name="Run", exact=True).click()
    page.get_by_text("Run All Cells", exact=True).click()


def run_all(page) -> None:
    """Run all cells from the menu and wait until the last one has ended."""
    start_all(page)
    page.wait_for_function(ALL_RUN, timeout=1000 * RUN_SECONDS)


def restart_and_run_all(page) -> None:
    """Restart the kernel from the menu, run all cells, and wait until the last one has ended."""
    page.get_by_role("menuitem", name="Kernel", exact=True).click()
    page.get_by_text("Restart Kernel and Run All Cells").click()
    page.locator(".jp-Dialog button.jp-mod-accept").click()
    page.wait_for_function(f"() => !({ALL_RUN})()")
    page.wait_for_function(ALL_RUN, timeout=1000 * RUN_SECONDS)


def save(page) -> None:
    """Save the changed notebook in view, and wait until the server has written it."""
    changed = page.locator(".lm-TabBar-tab.lm-mod-current.jp-mod-dirty")
    changed.wait_for()
    page.keyboard.press("Control+s")
    changed.wait_for(state="detached")


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
    option.wait_for(state="attached")
    choice.select_option(label=option.text_content())


def _address(server: subprocess.Popen, runtime: Path, log: Path) -> str:
    """Return the URL of a JupyterLab, once it answers."""
    record = runtime / f"jpserver-{server.pid}.json"
    end = time.monotonic() + START_SECONDS
    while time.monotonic() < end and server.poll() is None:
        with contextlib.suppress(OSError, ValueError):  # it is not there, not whole, or silent
            address = f"http://127.0.0.1:{json.loads(record.read_text())['port']}"
            with OPENER.open(f"{address}/api?token={TOKEN}", timeout=2):
                return address
        time.sleep(0.3)
    raise AssertionError(f"JupyterLab did not start: {log.read_text()[-2000:]}")
