"""One run's page, and its live curve."""

import itertools
import re

import pytest

from oelm_lib import config, run_page, training
from oelm_lib.arms import COLOURS
from oelm_lib.run_page.curve import MOST_SHARE, NOTHING
from oelm_lib.runs import Run

DEMO = config.load_config("DEMO-02")
MIMETYPE = "application/vnd.plotly.v1+json"


def test_the_parts_of_a_runs_page(tiny_run):
    base = tiny_run("DEMO-01", seed=3, train__max_steps=12)
    training.train(base)
    run = tiny_run("DEMO-02", seed=3, train__max_steps=12)
    assert "Not started at step 0 of 12" in run_page.result(run)
    training.train(run)
    assert "<h1>DEMO-02 OELM-Freeze, seed 3 (rehearsal)</h1>" in run_page.heading(run)
    result = run_page.result(run)
    assert re.search(r"Perplexity <b>[\d.]+</b> \(loss [\d.]+\)", result)
    assert re.search(r"At step 12 its perplexity is [−+][\d.]+ % against DEMO-01", result)
    assert "Proven" in run_page.freeze_proof(run)
    assert "Nothing was frozen" in run_page.freeze_proof(base)
    settings = run_page.settings(run)
    difference = settings.index("<td>model.freeze_q</td><td>false</td><td>true</td>")
    assert difference < settings.index("<details>") < settings.index("<td>optim.warmup_steps</td>")
    assert "This is a baseline" in run_page.settings(base)
    files = run_page.artefacts(run)
    assert "best.pt" in files
    command = f"<code>oelm report {run.config.folder}</code>"  # it was that of the demo's page
    assert command in files and command in result


def test_a_machine_setting_makes_no_rehearsal():
    cfg = config.load_config("DEMO-02", {"machine.threads": 1})
    assert "seed 3</h1>" in run_page.heading(Run(cfg, 3, None, None))


def test_the_heading_says_what_an_experiment_does_not_declare(tiny_run, monkeypatch, tmp_path):
    run = tiny_run()
    assert "class='bad'" not in run_page.heading(run)
    for path in config.PARAMS.glob("DEMO-0*.yaml"):
        text = path.read_text().replace("changes: [", "changes: [model.qk_bias, ")
        (tmp_path / path.name).write_text(text)
    monkeypatch.setattr(config.paths, "PARAMS", tmp_path)
    assert "changes is not what differs from DEMO-01; write `changes: [" in run_page.heading(run)


@pytest.fixture
def shown(monkeypatch):
    """What is displayed, in order."""
    shown = []
    monkeypatch.setattr("IPython.display.display", lambda data, **options: shown.append(data))
    return shown


def test_the_live_curve_draws_while_it_trains_and_leaves_the_cell_at_the_end(tiny_run, shown):
    run = tiny_run("DEMO-02", train__max_steps=12)
    curve = run_page.LiveCurve(run)
    calls = []
    training.train(run, lambda last: (calls.append(last), curve(last)))
    assert calls and calls[-1] is True and shown[-1] == NOTHING
    train, evals = curve.figure()["data"]
    assert (train["name"], evals["name"]) == ("training", "validation")
    assert MIMETYPE in shown[0]


@pytest.mark.parametrize(("exp", "arm"), [("DEMO-01", "baseline"), ("DEMO-02", "OELM-Freeze")])
def test_the_live_curve_has_the_colour_of_its_arm(tmp_path, exp, arm):
    """That of OELM-Freeze stood for every arm."""
    curve = run_page.LiveCurve(Run(config.load_config(exp), 1, None, tmp_path))
    assert {line["line"]["color"] for line in curve.figure()["data"]} == {COLOURS[arm]}


def test_the_live_curve_draws_whole_lines_and_a_fault_does_not_stop_the_run(
    tmp_path, shown, capsys
):
    seconds = [0.0]
    file = tmp_path / "metrics.jsonl"
    row = '{"event": "train", "step": %d, "tokens": 9, "loss": 2.0}\n'
    file.write_text(row % 1 + row % 2 + '{"event": "tr')
    curve = run_page.LiveCurve(Run(DEMO, 1, None, tmp_path), lambda: seconds[0])
    for text in ("", 'ain", "step": 3, "tokens": 9, "loss": 1.5}\n', "broken\n", "", ""):
        with open(file, "a") as added:
            added.write(text)
        seconds[0] += 10
        curve()
    steps = [data[MIMETYPE]["data"][0]["x"] for data in shown if MIMETYPE in data]
    assert steps == [[1, 2], [1, 2, 3]]
    assert capsys.readouterr().out.count("The live curve stops here") == 1


def test_the_live_curve_takes_at_most_its_share_of_the_time(tmp_path, shown):
    seconds, cost, total = [0.0], 0.1, 100
    curve = run_page.LiveCurve(Run(DEMO, 1, None, tmp_path), lambda: seconds[0])
    curve.figure = lambda: seconds.__setitem__(0, seconds[0] + cost)
    while seconds[0] < total:
        curve()
        seconds[0] += 0.5
    assert 5 <= shown.count(NOTHING) + 1 <= MOST_SHARE * total / cost + 1
    assert [NOTHING in pair for pair in itertools.pairwise(shown)].count(False) == 0
