"""The workbench in JupyterLab: from a new experiment to its comparison, without a shell."""

import contextlib
import re

import psutil
import pytest

from oelm_lib.config import read_yaml
from oelm_lib.files import read_json
from oelm_lib.launch.processes import kill_tree
from oelm_lib.runs.find import find_runs
from oelm_lib.runs.process import is_alive
from tests.conftest import TINY_RUN
from tests.lab import choose, field, make_checkout, open_lab, restart_and_run_all, run_all

LONG = 600_000
"""Milliseconds that runs of a busy machine may take."""
POINTS = """Math.max(0, ...[...document.querySelectorAll('.jupyter-widgets .js-plotly-plot')]
    .flatMap(plot => (plot.calcdata || []).map(points => points.length)))"""
"""Points of the longest line drawn."""
SIZE = TINY_RUN | {
    "model.num_layers": 1,
    "train.max_steps": 5000,
    "train.eval_interval": 200,
    "train.save_interval": 1000,
}


def start(page, exp, seeds):
    """Choose an experiment and start these seeds of it, two at once."""
    choose(page, "experiment", exp)
    field(page, "seeds").fill(seeds)
    field(page, "at once").fill("2")
    button = page.get_by_role("button", name=f"Start {exp}")
    button.wait_for()
    button.click()
    page.get_by_text(f"Started: oelm run {exp}").wait_for()
    page.locator(".oelm-waiting").wait_for(state="detached")


def wait_for_states(page, *states):
    """Wait until the chosen experiment's seeds are in these states."""
    text = ", ".join(f"seed {seed} {state}" for seed, state in states)
    page.locator(".jupyter-widgets td", has_text=re.compile(f"^{re.escape(text)}")).wait_for(
        timeout=LONG
    )


def started_processes(checkout):
    """Return the pids of the commands that the workbench has started and that still run."""
    records = [read_json(path) for path in (checkout / "outputs" / "logs").glob("*.json")]
    return [record["pid"] for record in records if is_alive(record)]


@contextlib.contextmanager
def training_paused(checkout):
    """Keep all runs where they are, so that a fast machine does not finish them meanwhile."""
    paused = []
    for pid in started_processes(checkout):
        with contextlib.suppress(psutil.NoSuchProcess):
            tree = psutil.Process(pid)
            paused += [tree, *tree.children(recursive=True)]
    for process in paused:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.suspend()
    yield
    for process in paused:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.resume()


@pytest.fixture
def checkout(tmp_path):
    """A checkout with small experiments; what was started there has ended after the test."""
    checkout = make_checkout(tmp_path, SIZE)
    yield checkout
    for pid in started_processes(checkout):
        kill_tree(pid)


@pytest.mark.slow
@pytest.mark.long
def test_from_a_new_experiment_to_its_comparison(tmp_path, checkout, stories):
    outputs = checkout / "outputs"
    with open_lab(checkout, OELM_DATA=str(stories), OELM_OUTPUTS=str(outputs)) as lab:
        page = lab.open("workbench", height=5000)
        run_all(page)
        start(page, "DEMO-01", "43")

        page.locator("[data-run='DEMO-02']").click()
        page.get_by_text("New experiment from DEMO-02").wait_for()
        field(page, "model.num_heads").fill("3")
        page.get_by_text("num_heads = 3 does not divide d_model = 16").first.wait_for()
        save = page.get_by_role("button", name="Save experiment")
        assert save.is_disabled()
        field(page, "model.num_heads").fill("2")
        choose(page, "model.freeze_k", "false")
        page.wait_for_function("document.querySelector('.mod-primary:not([disabled])')")
        save.click()
        page.get_by_text("Saved as params/DEMO-05.yaml").wait_for()
        assert read_yaml(checkout / "params" / "DEMO-05.yaml")["model"]["freeze_q"] is True

        start(page, "DEMO-05", "42,43")
        page.get_by_text("DEMO-05/42 · running").wait_for(timeout=LONG)
        page.wait_for_function(f"{POINTS} > 5", timeout=LONG)
        seen = page.evaluate(POINTS)
        page.wait_for_function(f"{POINTS} > {seen}", timeout=LONG)

        with training_paused(checkout):
            restart_and_run_all(page)
            choose(page, "experiment", "DEMO-05")
            page.get_by_text("DEMO-05/42 · running").wait_for()
            page.get_by_role("button", name="Stop", exact=True).click()
            page.get_by_text("asked to save and stop").first.wait_for()
        wait_for_states(page, (42, "stopped"), (43, "stopped"))

        page.get_by_role("button", name="Continue", exact=True).click()
        wait_for_states(page, (42, "done"), (43, "done"))
        logs = [path.read_text() for path in (outputs / "logs").glob("*.log")]
        assert logs and not [log for log in logs if "failed" in log]
        choose(page, "experiment", "DEMO-01")
        wait_for_states(page, (43, "done"))
        choose(page, "experiment", "DEMO-05")
        page.get_by_text("baseline · seed 43").first.wait_for()
        page.screenshot(path=tmp_path / "workbench.png")
        page.get_by_role("button", name="Compare", exact=True).click()
        link = page.locator(".jupyter-widgets a", has_text=re.compile(r"^compare_DEMO.*html$"))
        link.wait_for(timeout=LONG)
        assert (outputs / link.text_content()).is_file()

        cells = page.locator(".jp-Notebook .jp-Cell").count()
        page.get_by_role("button", name="Page", exact=True).focus()
        for key in ("a", "b", "d", "d"):
            page.keyboard.press(key)
        field(page, "runs").focus()
        for key in ("a", "b", "ArrowDown", "d", "d"):
            page.keyboard.press(key)
        assert page.locator(".jp-Notebook .jp-Cell").count() == cells

        last = field(page, "runs").locator("option").last.text_content()
        field(page, "runs").select_option(label=last)
        page.get_by_role("button", name="Remove", exact=True).click()
        page.get_by_text(re.compile(r"^Removed: DEMO-05_\w+/seed43")).wait_for()
        assert len(find_runs(outputs, "DEMO-05")) == 1
        page.get_by_role("button", name="Undo remove").click()
        page.get_by_text(re.compile(r"^Back again: DEMO-05_\w+/seed43")).wait_for()
        assert len(find_runs(outputs, "DEMO-05")) == 2
        assert page.get_by_text("Jupyter news").count() == 0
        assert page.locator("[data-mime-type='application/vnd.jupyter.stderr']").count() == 0
