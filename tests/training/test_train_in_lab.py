"""train.ipynb in JupyterLab: the curve grows, an interrupt saves, the cell run again goes on."""

import subprocess

import pytest

from oelm_lib import runs
from tests.conftest import TINY_RUN
from tests.lab import ALL_RUN, make_checkout, open_lab, save, start_all
from tests.launch.conftest import wait_for

LONG = 600_000
"""Milliseconds that training may take on a busy machine."""
SIZE = TINY_RUN | {
    "model.num_layers": 1,
    "train.max_steps": 10**6,  # it is never done, however fast the machine
    "train.eval_interval": 1000,
    "train.save_interval": 10**6,
}
POINTS = """Math.max(0, ...[...document.querySelectorAll('.jp-CodeCell .js-plotly-plot')]
    .flatMap(plot => (plot.calcdata || []).map(points => points.length)))"""
"""Points of the longest line drawn."""


def git(checkout, *arguments):
    command = ["git", "-C", checkout, "-c", "user.name=a", "-c", "user.email=a@b", *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


@pytest.mark.slow
def test_an_interrupted_cell_goes_on_and_a_saved_notebook_leaves_the_checkout_clean(
    tmp_path, stories
):
    checkout = make_checkout(tmp_path, SIZE)
    for command in (["init", "-q"], ["add", "-A"], ["commit", "-q", "-m", "all"]):
        git(checkout, *command)
    outputs = checkout / "outputs"
    with open_lab(checkout, OELM_DATA=str(stories), OELM_OUTPUTS=str(outputs)) as lab:
        page = lab.open("train", height=3000)
        cells = page.locator(".jp-Notebook .jp-CodeCell")
        page.get_by_text("| Idle").first.wait_for()  # until then Lab may draw the cell once more
        cells.nth(0).locator(".cm-content").fill(
            'exp: str = "DEMO-01"\nseed: int = 7\noverrides: str = ""\nfresh: bool = False'
        )
        cells.nth(0).get_by_text("DEMO-01").wait_for()
        start_all(page)
        seen = page.wait_for_function(POINTS, timeout=LONG).json_value()
        page.wait_for_function(f"{POINTS} > {seen}", timeout=LONG)
        interrupt(page)
        (run,) = runs.find_runs(outputs)
        assert run.parts[-2:] == ("DEMO-01_baseline", "seed7") and runs.state(run) == "stopped"
        first = runs.read_status(run)["step"]

        cells.nth(2).locator(".cm-content").click()
        page.keyboard.press("Control+Enter")
        wait_for(lambda: runs.read_status(run)["step"] > first, "the run goes on", LONG / 1000)
        interrupt(page)
        assert runs.state(run) == "stopped"
        save(page)
        page.screenshot(path=tmp_path / "train.png")
    record = runs.read_config(run)
    assert [session["step"] for session in record["sessions"]] == [0, first]
    assert record["code"]["commit"] == git(checkout, "rev-parse", "HEAD").strip()
    assert [session["code"]["dirty"] for session in record["sessions"]] == [False, False]
    steps = runs.read_metrics(run).query("event == 'train'")["step"]
    assert steps.is_monotonic_increasing and steps.is_unique and steps.iloc[-1] > first
    assert "DEMO-01" in (checkout / "lab" / "train.ipynb").read_text()
    assert git(checkout, "status", "--porcelain") == ""


def interrupt(page):
    """Press the stop button of the notebook, and wait until the run is saved."""
    page.locator("[data-command='notebook:interrupt-kernel']").first.click()
    page.wait_for_function(f"() => ({ALL_RUN})()", timeout=LONG)
