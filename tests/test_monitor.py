"""The table of runs, one run's page, and the live curve."""

import os
import re
import subprocess
import sys

import pytest

from oelm_lib import config, monitor, runs, training
from oelm_lib.config import ROOT
from oelm_lib.monitor import Monitor, run_table
from oelm_lib.monitor.curve import MOST_SHARE
from oelm_lib.monitor.live import MOST_CURVES
from tests import runs_factory
from tests.conftest import TINY_RUN
from tests.lab import open_lab, run_all

MIMETYPE = "application/vnd.plotly.v1+json"
POINTS = """Math.max(0, ...[...document.querySelectorAll('.jupyter-widgets .js-plotly-plot')]
    .flatMap(plot => (plot.calcdata || []).map(points => points.length)))"""
"""Points of the longest line drawn; the values themselves are packed."""


def curve_names(watcher):
    traces = watcher.curves.outputs[0]["data"][MIMETYPE]["data"]
    return {trace["name"] for trace in traces if "seed" in trace["name"]}


def test_the_monitor_shows_a_table_curves_and_time_of_runs_finished_and_in_progress(tmp_path):
    runs_factory.make_run(tmp_path, "DEMO-01", state="done")
    runs_factory.make_run(tmp_path, "DEMO-02", state="running", done=0.5)
    watcher = Monitor("*", str(tmp_path))
    assert "2 runs: " in watcher.states.value and "DEMO-02_oelm_freeze/" in watcher.states.value
    assert curve_names(watcher) == {"OELM-Freeze · seed 42", "baseline · seed 42"}
    before = watcher.curves.outputs
    watcher.refresh()
    assert watcher.curves.outputs is before  # no new rows: nothing is drawn again
    runs_factory.make_run(tmp_path, "DEMO-03", state="running", done=0.2)
    watcher.refresh()
    assert "3 runs: " in watcher.states.value
    assert curve_names(watcher) == {
        "OELM-Freeze · seed 42",
        "OELM-Random · seed 42",
        "baseline · seed 42",
    }


def test_the_filter_chooses_rows_and_curves(tmp_path):
    for exp, state in (("DEMO-01", "done"), ("DEMO-02", "running"), ("DEMO-03", "failed")):
        runs_factory.make_run(tmp_path, exp, state=state, done=0.5 if state != "done" else 1.0)
    watcher = Monitor("*", str(tmp_path))
    watcher.words.value = "freeze DEMO-03*"
    assert "2 runs: " in watcher.states.value and "DEMO-01_baseline/" not in watcher.states.value
    assert curve_names(watcher) == {"OELM-Freeze · seed 42", "OELM-Random · seed 42"}
    watcher.state.value = "active"
    assert "1 runs: 1 running" in watcher.states.value
    watcher.words.value = "nothing"
    assert "no such runs yet" in watcher.states.value


def test_only_so_many_curves_as_can_be_told_apart_are_drawn(tmp_path):
    for seed in range(MOST_CURVES + 2):
        runs_factory.make_run(tmp_path, "DEMO-01", seed, done=0.1, state="stopped")
    runs_factory.make_run(tmp_path, "DEMO-01", 99, state="running", done=0.2)
    watcher = Monitor("*", str(tmp_path))
    names = curve_names(watcher)
    assert len(names) == MOST_CURVES and any("99" in name for name in names)
    assert "3 older runs are not drawn" in watcher.note.value


def test_table_cells_are_escaped_and_do_not_wrap():
    rows = [{"run": "a/seed1", "state": "failed", "reason": "<script> a | b", "step": 1200}]
    table = run_table(rows)
    assert "&lt;script&gt; a | b" in table and "<script>" not in table and "1,200" in table
    assert table.count("<td ") == table.count("white-space:nowrap") // 2
    assert "<span class='bad'>failed</span>" in table


def test_the_monitor_starts_before_any_run_does(tmp_path):
    watcher = Monitor("*", str(tmp_path))
    assert "no such runs yet" in watcher.states.value
    (tmp_path / "DEMO-01_baseline" / "seed1").mkdir(parents=True)
    watcher.refresh()
    assert "1 runs: 1 empty" in watcher.states.value
    assert watcher.budgets.outputs


def test_the_parts_of_a_runs_page(tiny_run):
    base = tiny_run("DEMO-01", seed=3, train__max_steps=12)
    training.train(base.config, base)
    run = tiny_run("DEMO-02", seed=3, train__max_steps=12)
    assert "Not started at step 0 of 12" in monitor.result(run)
    training.train(run.config, run)
    assert "<h1>DEMO-02 OELM-Freeze, seed 3 (rehearsal)</h1>" in monitor.heading(run)
    result = monitor.result(run)
    assert re.search(r"Perplexity <b>[\d.]+</b> \(loss [\d.]+\)", result)
    assert re.search(r"At step 12 its perplexity is [-+][\d.]+ % against DEMO-01", result)
    assert "Proven" in monitor.freeze_proof(run)
    assert "Nothing was frozen" in monitor.freeze_proof(base)
    settings = monitor.settings(run)
    difference = settings.index("<td>model.freeze_q</td><td>False</td><td>True</td>")
    assert difference < settings.index("<details>") < settings.index("<td>optim.warmup_steps</td>")
    assert "This is a baseline" in monitor.settings(base)
    assert "best.pt" in monitor.artefacts(run)


def test_the_heading_says_what_an_experiment_does_not_declare(tiny_run, monkeypatch, tmp_path):
    run = tiny_run()
    assert "class='bad'" not in monitor.heading(run)
    for path in config.PARAMS.glob("DEMO-0*.yaml"):
        text = path.read_text().replace("changes: [", "changes: [model.qk_bias, ")
        (tmp_path / path.name).write_text(text)
    monkeypatch.setattr(config.paths, "PARAMS", tmp_path)
    assert "changes is not what differs from DEMO-01; write `changes: [" in monitor.heading(run)


@pytest.fixture
def shown(monkeypatch):
    """What is displayed, in order."""
    shown = []
    monkeypatch.setattr("IPython.display.display", lambda data, **options: shown.append(data))
    return shown


def test_the_live_curve_draws_while_it_trains_and_leaves_the_cell_at_the_end(tiny_run, shown):
    run = tiny_run("DEMO-02", train__max_steps=12)
    curve = monitor.LiveCurve(run)
    calls = []
    training.train(run.config, run, lambda last: (calls.append(last), curve(last)))
    assert calls and calls[-1] is True and shown[-1] == {"text/plain": ""}
    train, evals = curve.figure()["data"]
    assert (train["name"], evals["name"]) == ("training", "validation")
    assert MIMETYPE in shown[0]


def test_the_live_curve_reads_whole_lines_once_and_a_fault_does_not_stop_the_run(
    tmp_path, shown, capsys
):
    seconds = [0.0]
    file = tmp_path / "metrics.jsonl"
    row = '{"event": "train", "step": %d, "loss": 2.0}\n'
    file.write_text(row % 1 + row % 2 + '{"event": "tr')
    curve = monitor.LiveCurve(tmp_path, lambda: seconds[0])
    steps = []
    for text in ("", 'ain", "step": 3, "loss": 1.5}\n', "", "broken\n", "", ""):
        with open(file, "a") as added:
            added.write(text)
        seconds[0] += 10
        curve()
        steps.append(curve.figure()["data"][0]["x"])
    assert steps == [[1, 2], *[[1, 2, 3]] * 5]
    assert capsys.readouterr().out.count("The live curve stops here") == 1


def test_the_live_curve_takes_at_most_its_share_of_the_time(tmp_path, shown):
    seconds, cost, total = [0.0], 0.1, 100
    curve = monitor.LiveCurve(tmp_path, lambda: seconds[0])
    curve._read = lambda: seconds.__setitem__(0, seconds[0] + cost)
    while seconds[0] < total:
        curve()
        seconds[0] += 0.5
    assert 5 <= len(shown) <= MOST_SHARE * total / cost + 1


@pytest.mark.slow
def test_a_running_experiments_curve_grows_in_jupyterlab(tmp_path, stories):
    outputs = tmp_path / "outputs"
    rare = (
        "max_steps",
        "eval_interval",
        "save_interval",
    )  # a run of fast steps would else be seen while it saves
    overrides = TINY_RUN | {f"train.{name}": 10**6 for name in rare}
    code = "from oelm_lib import config, runs, training;"
    code += f"c = config.load_config('DEMO-01', {overrides!r});"
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
            page.locator(".jupyter-widgets p", has_text="1 running").wait_for(timeout=10_000)
            assert (
                page.locator(".jupyter-widgets .js-plotly-plot").count() == 2
            )  # curves and time budget
            page.screenshot(path=tmp_path / "monitor.png")
        finally:
            trainer.terminate()
            trainer.wait(60)
        (run,) = runs.find_runs(outputs)
        assert runs.state(run) == "stopped"
        page.locator(".jupyter-widgets p", has_text="1 stopped").wait_for(timeout=30_000)
