import os
import subprocess
import sys

import pytest

from oelm_lib import runs
from oelm_lib.config import ROOT
from oelm_lib.monitor import Monitor
from tests import runs_factory
from tests.conftest import TINY_RUN
from tests.lab import open_lab, run_all

MIMETYPE = "application/vnd.plotly.v1+json"
POINTS = """Math.max(0, ...[...document.querySelectorAll('.jupyter-widgets .js-plotly-plot')]
    .flatMap(plot => (plot.calcdata || []).map(points => points.length)))"""
"""Points of the longest line drawn; the values themselves are packed."""


def test_the_monitor_shows_states_curves_and_time_of_runs_in_progress(tmp_path):
    runs_factory.make_run(tmp_path, "DEMO-01", state="done")
    runs_factory.make_run(tmp_path, "DEMO-02", state="running", done=0.5)
    monitor = Monitor("*", str(tmp_path))
    assert "2 runs: " in monitor.states.value and "DEMO-02_oelm_freeze/" in monitor.states.value
    curves = monitor.curves.outputs[0]["data"][MIMETYPE]
    assert {trace["name"].split(" · ")[0] for trace in curves["data"]} == {"OELM-Freeze"}
    before = monitor.curves.outputs
    monitor.refresh()
    assert monitor.curves.outputs is before  # nothing got on: nothing is drawn again
    runs_factory.make_run(tmp_path, "DEMO-03", state="running", done=0.2)
    monitor.refresh()
    assert "3 runs: " in monitor.states.value
    assert len(monitor.curves.outputs[0]["data"][MIMETYPE]["data"]) > len(curves["data"])


def test_the_monitor_starts_before_any_run_does(tmp_path):
    monitor = Monitor("*", str(tmp_path))
    assert "no such runs yet" in monitor.states.value
    (tmp_path / "DEMO-01_baseline" / "seed1").mkdir(parents=True)
    monitor.refresh()
    assert "1 runs: 1 empty" in monitor.states.value
    assert monitor.budgets.outputs


@pytest.mark.slow
def test_a_running_experiments_curve_grows_in_jupyterlab(tmp_path, stories):
    outputs = tmp_path / "outputs"
    rare = (
        "max_steps",
        "eval_interval",
        "save_interval",
    )  # a run of fast steps would else be seen while it saves
    overrides = TINY_RUN | {f"train.{name}": 10**6 for name in rare}
    code = f"from oelm_lib import config, runs, training; c = config.load_config('DEMO-01', {overrides!r});"
    code += f"training.train(c, runs.open_run(c, 1, {str(outputs)!r}))"
    environment = {"OELM_DATA": str(stories), "OELM_OUTPUTS": str(outputs)}
    with open_lab(tmp_path, "monitor", **environment) as page:
        trainer = subprocess.Popen(
            [sys.executable, "-c", code], cwd=ROOT, env=os.environ | environment
        )
        try:
            page.get_by_text("| Idle").wait_for(timeout=60_000)
            run_all(page)
            page.wait_for_function(f"{POINTS} > 5", timeout=120_000)
            seen = page.evaluate(POINTS)
            page.wait_for_function(f"{POINTS} > {seen}", timeout=60_000)
            page.locator(".jupyter-widgets pre", has_text="1 running").wait_for(timeout=10_000)
            assert (
                page.locator(".jupyter-widgets .js-plotly-plot").count() == 2
            )  # curves and time budget
            page.screenshot(path=tmp_path / "monitor.png")
        finally:
            trainer.terminate()
            trainer.wait(60)
        (run,) = runs.find_runs(outputs)
        assert runs.state(run) == "stopped"
        page.locator(".jupyter-widgets pre", has_text="1 stopped").wait_for(timeout=30_000)
