"""Pages worth keeping in git: the page, a picture beside it, and an index of what made them."""

import re
import shutil
import subprocess
import tempfile
from html import unescape
from pathlib import Path

from oelm_lib import config
from oelm_lib.errors import UserError
from oelm_lib.files import replacing, write_text
from oelm_lib.report.page import report
from oelm_lib.runs.provenance import code_version

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--hide-scrollbars",
]
FLAGS += ["--disable-background-networking", "--disable-component-update", "--disable-sync"]


def keep(target: str, folder: Path = config.ROOT / "reports") -> Path:
    """Make the page of `target` (as html.report takes it) from a clean commit and publish it.

    Raises:
        UserError: The checkout has uncommitted changes, so no commit could say what made the page; or no browser.
    """
    if code_version()["dirty"]:
        raise UserError(
            "reports/ is made from a clean commit; commit your changes first (git status lists them)"
        )
    return publish(report(target), folder)


def publish(page: Path, folder: Path) -> Path:
    """Copy a page to a folder with a picture of its top beside it, and rewrite the folder's index.md."""
    folder.mkdir(exist_ok=True)
    kept = folder / page.name
    with replacing(kept) as temporary:
        shutil.copyfile(page, temporary)
    screenshot(kept, kept.with_suffix(".png"))
    entries = "\n".join(_entry(path) for path in sorted(folder.glob("*.html")))
    write_text(
        folder / "index.md",
        f"# Reports\n\nMade by `make reports`; each page opens offline.\n\n{entries}",
    )
    return kept


def screenshot(page: Path, picture: Path, size: tuple[int, int] = (1200, 2000)) -> None:
    """Save a PNG of the top of a page through Chromium. Raises UserError where there is none."""
    browser = next((found for name in BROWSERS if (found := shutil.which(name))), None)
    if browser is None:
        raise UserError(f"no browser for {picture.name}; install one of {', '.join(BROWSERS)}")
    window = [f"--window-size={size[0]},{size[1]}", "--virtual-time-budget=20000"]
    with tempfile.TemporaryDirectory() as profile, replacing(picture) as temporary:
        shot = Path(profile) / "page.png"  # the browser goes by the suffix
        places = [f"--user-data-dir={profile}", f"--screenshot={shot}", page.resolve().as_uri()]
        subprocess.run(
            [browser, *FLAGS, *window, *places], capture_output=True, timeout=120, check=True
        )
        shutil.copyfile(shot, temporary)


def _entry(page: Path) -> str:
    """The index's lines on a page, from the page's own provenance."""
    text = page.read_text(encoding="utf-8")
    title = unescape(re.search(r"<title>(.*?)</title>", text).group(1))
    facts = re.findall(r"<dt>(.*?)</dt><dd>(.*?)</dd>", text)
    runs = re.findall(r"<tr><td>([^<]*)</td><td><code>", text)
    lines = [
        f"- {name}: {unescape(value)}"
        for name, value in [*facts, ("runs", ", ".join(runs))]
        if value
    ]
    return "\n".join(
        [f"## [{title}]({page.name})", "", f"![{title}]({page.stem}.png)", "", *lines, ""]
    )
