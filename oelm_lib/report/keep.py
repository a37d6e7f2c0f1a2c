"""Publish pages in reports/: the page, a picture beside it, and an index of what made them."""

import json
import re
import shutil
import subprocess
import tempfile
from html import unescape
from pathlib import Path

from oelm_lib import config
from oelm_lib.errors import UserError
from oelm_lib.files import replacing, write_text
from oelm_lib.report.make import page_slug, report
from oelm_lib.runs.names import run_name
from oelm_lib.runs.provenance import code_version

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--hide-scrollbars",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--virtual-time-budget=20000",
)
WIDTH, TOP_HEIGHT = 1000, 1300
"""Pixels of a picture; the height is that of a page without figures."""
PICTURE_SECONDS = 120
"""Time in which a browser must have made a picture."""
PROVENANCE = "<h2>Provenance</h2>"
"""Heading of the last part of a page (templates/page.html.j2)."""
HEAD = """# Reports

Each page opens offline. Below each page: the command that made it, and the commit.
`oelm report TARGET --keep` makes a page and publishes it here. A study's plan
and records are in the folder named after it.
Small runs give somewhat different numbers on another CPU, of the same order of magnitude.
"""


def keep(target: str, baseline: str | None = None) -> Path:
    """Make a page from a clean commit and publish it in reports/; arguments as `make.report`.

    Raises:
        UserError: The checkout has uncommitted changes, so that no commit could say what made the
            page; or there is no browser for the picture.
    """
    if code_version()["dirty"]:
        raise UserError(
            "reports/ is made from a clean commit; commit your changes first (git status)"
        )
    return publish(report(target, baseline), config.ROOT / "reports")


def publish(page: Path, folder: Path) -> Path:
    """Copy a page to a folder with a picture of it, and rewrite the folder's index.md."""
    folder.mkdir(exist_ok=True)
    is_run = (page.parent / "config.yaml").is_file()  # the page of every run is train.html
    kept = folder / (f"{page_slug(run_name(page.parent))}.html" if is_run else page.name)
    screenshot(page, kept.with_suffix(".png"))  # first: without a browser nothing is published
    with replacing(kept) as temporary:
        shutil.copyfile(page, temporary)
    write_index(folder)
    return kept


def write_index(folder: Path) -> None:
    """Write index.md from the provenance that each page of a folder carries.

    Files of other origin have none, and are left out.
    """
    pages = sorted(folder.glob("*.html"))
    texts = {page: page.read_text(encoding="utf-8", errors="replace") for page in pages}
    entries = [_entry(page, text) for page, text in texts.items() if PROVENANCE in text]
    write_text(folder / "index.md", "\n".join([HEAD, *entries]))


def screenshot(page: Path, picture: Path) -> None:
    """Save a PNG of the first figure of a page, or of its top, through Chromium.

    Raises:
        UserError: There is no Chromium, or it makes no picture.
    """
    browser = next((path for name in BROWSERS if (path := shutil.which(name))), None)
    if browser is None:
        raise UserError(f"no browser for {picture.name}; install one of {', '.join(BROWSERS)}")
    with tempfile.TemporaryDirectory() as profile, replacing(picture) as temporary:
        shot = Path(profile) / "page.png"  # the browser takes the format from the suffix
        address, height = _pictured(page)
        command = [
            browser,
            *FLAGS,
            f"--window-size={WIDTH},{height}",
            f"--user-data-dir={profile}",
            f"--screenshot={shot}",
            address,
        ]
        try:
            subprocess.run(command, capture_output=True, timeout=PICTURE_SECONDS, check=True)
        except subprocess.TimeoutExpired:
            raise UserError(
                f"{page}: {browser} made no picture in {PICTURE_SECONDS} s; open the page in it to"
                " see why"
            ) from None
        except subprocess.CalledProcessError as error:
            raise UserError(
                f"{page}: {browser} made no picture: it ended with exit code {error.returncode};"
                " open the page in it to see why"
            ) from None
        if not shot.is_file():
            raise UserError(
                f"{page}: {browser} made no picture, and no error; one from snap has a /tmp of its"
                " own: set TMPDIR to a folder in your home folder"
            )
        shutil.copyfile(shot, temporary)


def _pictured(page: Path) -> tuple[str, int]:
    """Return the address of what a picture shows, and its height in pixels."""
    address = page.resolve().as_uri()
    script = re.search(r'id="oelm-figures">(.*?)</script>', page.read_text(encoding="utf-8"))
    figures = json.loads(script.group(1)) if script else []
    if not figures:
        return address, TOP_HEIGHT
    # The page's caption and margins take about the room that the figure keeps for its title.
    return f"{address}#figure-1", figures[0]["layout"].get("height", TOP_HEIGHT) + 24


def _entry(page: Path, text: str) -> str:
    """Return the index's lines on a page, from the provenance in its text."""
    title = unescape(re.search(r"<title>(.*?)</title>", text).group(1))
    footer = text[text.index(PROVENANCE) :]
    facts = re.findall(r"<dt>(.*?)</dt><dd>(.*?)</dd>", footer)
    runs = ", ".join(re.findall(r"<tr><td>([^<]*)</td><td><code>", footer))
    lines = []
    for name, value in [*facts, ("runs", runs)]:
        if value:
            value = unescape(value)
            lines.append(f"- {name}: `{value}`" if name == "command" else f"- {name}: {value}")
    picture = f"![{title}]({page.stem}.png)"
    return "\n".join([f"## [{title}]({page.name})", "", picture, "", *lines, ""])
