"""The engine of a study, as a user runs it: in a copy of the checkout, in processes of its own."""

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import huggingface_hub.constants
import psutil
import pytest

from oelm_lib import config
from oelm_lib.errors import DONE, STOPPED, UserError
from oelm_lib.files import write_json
from oelm_lib.launch.study_engine import _Engine, run_study
from oelm_lib.launch.study_worker import BROKEN, HELD, INTERRUPTED, Reply, Task, make_reply
from oelm_lib.runs.process import this_process
from oelm_lib.runs.reading import ACTIVE, read_status, state
from oelm_lib.runs.stop import ask_to_stop, stop_file
from oelm_lib.study.checks import read_grid
from oelm_lib.study.plan import parse_plan
from oelm_lib.yaml_text import dump_yaml
from tests.conftest import TINY_RUN
from tests.launch.conftest import wait_for
from tests.runs.test_lock import Writer

HANGS = 1200
"""Seconds after which a study hangs; on a slow machine the example takes minutes."""
SCIENCE = {key: value for key, value in TINY_RUN.items() if not key.startswith("machine.")}
PLAN = {
    "question": "What does it cost?",
    "base": "DEMO-01",
    "set": SCIENCE | {"train.max_steps": 12},
    "corpora": ["stories"],
    "arms": {
        "trained": {},
        "frozen": {"set": {"model.freeze_q": True, "model.freeze_k": True}, "against": "trained"},
    },
    "tune": {"seeds": [1, 2], "start": 0.02, "factor": 2.0, "error": 1.0, "most_rates": 3},
    "confirm": {"seeds": {"from": 101, "count": 2}, "split": "test"},
    "claims": [{"arm": "frozen", "at_most": 0.05}],
}
TUNING_RUNS, CONFIRMATION_RUNS = 12, 4
WITH_WILD_ARM = {
    "arms": PLAN["arms"]
    | {"wild": {"set": {"optim.grad_clip": 1e9}, "against": "trained", "rate_factor": 1e8}},
    "claims": [*PLAN["claims"], {"arm": "wild", "at_most": 0.05}],
}
"""Changes of the plan by which one more arm is tuned; its training diverges."""


class Checkout:
    """A copy of the checkout with one study in it."""

    def __init__(self, folder, data):
        self.folder = folder
        ignored = shutil.ignore_patterns("__pycache__", "studies")
        for name in ("oelm_lib", "params", "notebooks"):
            shutil.copytree(config.ROOT / name, folder / name, ignore=ignored)
        (folder / "params" / "studies").mkdir()
        shutil.copy(config.ROOT / "pyproject.toml", folder)
        self.environment = os.environ | {
            "PYTHONPATH": str(folder),
            "OELM_DATA": str(data),
            "OELM_OUTPUTS": str(folder / "outputs"),
            "OMP_NUM_THREADS": "1",
        }
        self.records_path = folder / "reports" / "tiny" / "runs.jsonl"

    def declare(self, **changes):
        """Write the plan."""
        text = dump_yaml(PLAN | changes)
        (self.folder / "params" / "studies" / "tiny.yaml").write_text(text)

    def start(self, *options):
        """Begin `oelm study tiny`."""
        command = [sys.executable, "-m", "oelm_lib.cli", "study", "tiny", *options]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
        return subprocess.Popen(
            command, env=self.environment, cwd=self.folder, start_new_session=True, **pipes
        )

    def run(self, *options):
        """Run `oelm study tiny`; returns (exit code, output)."""
        process = self.start(*options)
        output, _ = process.communicate(timeout=HANGS)
        return process.returncode, output

    def records(self):
        """The lines of runs.jsonl."""
        with contextlib.suppress(FileNotFoundError):
            return [json.loads(line) for line in self.records_path.read_text().splitlines()]
        return []

    def started_runs(self):
        """The folders of runs that have rows."""
        runs = self.folder / "outputs" / "studies" / "tiny"
        return [path.parent for path in runs.glob("*/seed*/metrics.jsonl")]

    def wait_for_records(self, count):
        """Wait until so many runs are recorded."""
        end = time.monotonic() + 300
        while len(self.records()) < count:
            assert time.monotonic() < end
            time.sleep(0.05)


@pytest.fixture
def checkout(tmp_path, stories):
    made = Checkout(tmp_path / "checkout", stories)
    made.declare()
    return made


def keys(records):
    return [(r["arm"], r["rate"], r["seed"]) for r in records]


def losses(records):
    return {key: record["val_loss"] for key, record in zip(keys(records), records, strict=True)}


def kill_a_worker(engine, checkout):
    """Kill a worker of an engine in the middle of a run; return whether there was one."""
    for worker in psutil.Process(engine.pid).children():
        worker.suspend()  # so that its run does not end before it is killed
        active = [run for run in checkout.started_runs() if state(run) in ACTIVE]
        if worker.pid in {read_status(run)["pid"] for run in active}:
            worker.kill()
            return True
        worker.resume()
    return False


def stopped_run(checkout):
    """Ask a run that trains to stop; returns its folder, or None where none trains now."""
    for run in checkout.started_runs():
        with contextlib.suppress(UserError):  # it has ended meanwhile
            ask_to_stop(run)
            return run
    return None


def test_an_unknown_study_and_a_missing_corpus_are_one_line(monkeypatch, tmp_path):
    monkeypatch.setenv("OELM_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("OELM_OUTPUTS", str(tmp_path / "outputs"))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(UserError, match="no study 'nothing'; known: example, oelm"):
        run_study("nothing")
    with pytest.raises(UserError, match="tinystories-sample"):
        run_study("oelm")
    assert not (tmp_path / "outputs").exists()


@pytest.mark.parametrize(
    ("options", "workers"),
    [
        ({"gpus": ["0", "1", "2", "3"]}, "4 workers"),
        ({"workers": 1, "gpus": ["0", "1"], "sbatch": {"gres": "gpu:1"}}, "1 worker"),
    ],
)
def test_a_dry_run_counts_the_workers_that_would_train(capsys, options, workers):
    assert run_study("oelm", dry_run=True, **options) == DONE
    assert capsys.readouterr().out.endswith(f" with {workers}\n")


def test_an_engine_leaves_a_run_that_others_stop_and_the_next_engine_continues_it(
    monkeypatch, tmp_path, capsys
):
    monkeypatch.setenv("OELM_OUTPUTS", str(tmp_path))
    plan = parse_plan(PLAN, "plan.yaml")

    def make_engine():
        return _Engine("no-records", read_grid("no-records", plan), [None])

    engine = make_engine()
    first, *others = engine._free_runs()
    engine._settle(first, Reply(INTERRUPTED), 1.0)
    assert list(engine._free_runs()) == others
    assert engine._report() == STOPPED
    assert capsys.readouterr().out.splitlines()[-1].endswith(f"continues, e.g. {first}")
    assert next(make_engine()._free_runs()) == first
    engine = make_engine()
    engine.on_signal(signal.SIGTERM, None)
    engine._settle(first, Reply(INTERRUPTED), 1.0)
    assert next(engine._free_runs()) == first  # its own request: another engine may take the run


def test_a_run_that_another_engine_scores_is_waited_for_and_is_no_failure(
    monkeypatch, tmp_path, stories, capsys
):
    monkeypatch.setenv("OELM_OUTPUTS", str(tmp_path))
    monkeypatch.setenv("OELM_DATA", str(stories))
    plan = parse_plan(PLAN, "plan.yaml")
    engine = _Engine("no-records", read_grid("no-records", plan), [None])
    first, *others = engine._free_runs()
    path = engine._path(first)
    path.mkdir(parents=True)
    write_json(path / "status.json", this_process() | {"state": "done"})
    overrides = plan.overrides(first.cell, first.rate)
    outputs = path.parent.parent
    task = Task("no-records", plan.hash, first, plan.base, overrides, outputs, False)
    writer = Writer(path)
    try:
        assert writer("acquire") == "held"
        assert list(engine._free_runs()) == others
        for _ in range(2):
            engine._name_held_by_others()
        line = f"{first}: in use by another process, so waited for ({path})"
        assert capsys.readouterr().out.count(line) == 1
        reply = make_reply(task, tmp_path / "worker0.log")
    finally:
        writer.die()
    assert (reply.kind, "in use by process" in reply.message) == (HELD, True)
    engine._settle(first, reply, 1.0)
    assert not engine._failures
    assert next(engine._free_runs()) == first
    engine._settle(first, Reply(BROKEN, message="the disk is full"), 1.0)
    assert engine._failures[first] == 1


@pytest.fixture(scope="module")
def trained(tmp_path_factory, stories):
    """A study that two workers have trained."""
    checkout = Checkout(tmp_path_factory.mktemp("trained") / "checkout", stories)
    checkout.declare(**WITH_WILD_ARM)
    code, output = checkout.run("--workers", "2")
    assert code == 0, output
    return checkout


@pytest.mark.slow
def test_a_study_is_trained_recorded_and_never_trained_again(trained):
    records = [record for record in trained.records() if record["arm"] != "wild"]
    assert len(set(keys(records))) == len(records) == TUNING_RUNS + CONFIRMATION_RUNS
    confirmed = [record for record in records if record["stage"] == "confirm"]
    assert {record["seed"] for record in confirmed} == {101, 102}
    assert all(record["test_loss"] and record["test_documents"] for record in confirmed)
    assert all(record["test_loss"] is None for record in records if record["stage"] == "tune")
    assert all(record["machine"]["gflops"] > 0 for record in records)
    runs = list((trained.folder / "outputs" / "studies" / "tiny").glob("*/seed*"))
    assert len(runs) == len(trained.records())
    finished = [run for run in runs if (run / "summary.json").is_file()]
    assert len(finished) == [record["status"] for record in trained.records()].count("done")
    assert not list((trained.folder / "outputs").rglob("*.pt"))
    before = trained.records_path.read_bytes()
    code, output = trained.run()
    assert (code, trained.records_path.read_bytes()) == (0, before)
    assert "complete" in output


@pytest.mark.slow
def test_an_arm_that_diverges_is_recorded_and_stops_nothing(trained):
    wild = [record for record in trained.records() if record["arm"] == "wild"]
    assert {record["stage"] for record in wild} == {"tune"}
    assert "diverged" in {record["status"] for record in wild}


@pytest.mark.slow
def test_a_changed_plan_and_another_corpus_are_refused(trained, checkout):
    """A plan that changes after confirmation began, and a corpus with other content."""
    shutil.copytree(trained.records_path.parent, checkout.records_path.parent)
    checkout.declare(**WITH_WILD_ARM, confirm={"seeds": {"from": 201, "count": 2}})
    code, output = checkout.run()
    assert code == 2
    assert "the plan changed after its confirmation began: confirm" in output
    checkout.declare(**WITH_WILD_ARM, set=PLAN["set"] | {"train.max_steps": 13})
    code, output = checkout.run()
    assert code == 2
    assert "of another plan: train.max_steps was 12, is 13" in output
    checkout.declare(**WITH_WILD_ARM)
    lines = checkout.records()
    lines[0]["data"]["splits"]["val"]["sha256"] = "0" * 64
    del lines[0]["checksum"]
    checkout.records_path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    code, output = checkout.run()
    assert code == 2
    assert "its val split is not the one that recorded runs read" in output
    assert "Traceback" not in output


@pytest.mark.slow
def test_after_a_stop_of_one_run_and_ctrl_c_the_same_command_goes_on(checkout):
    # A STOP file is looked for each second: the runs must not be over by then.
    checkout.declare(set=PLAN["set"] | {"train.max_steps": 100})
    process = checkout.start("--workers", "2")
    path = wait_for(lambda: stopped_run(checkout), "a run that trains is asked to stop")
    wait_for(
        lambda: len(checkout.started_runs()) > len(checkout.records()) + 2,
        "the worker of the stopped run has another one",
    )
    checkout.wait_for_records(1)
    os.killpg(process.pid, signal.SIGINT)
    output, _ = process.communicate(timeout=HANGS)
    assert process.returncode == STOPPED, output
    assert output.count("stopped by oelm stop, so left") == 1
    assert "Traceback" not in output
    assert (read_status(path)["state"], (path / "summary.json").exists()) == ("stopped", False)
    before = keys(checkout.records())
    assert len(before) < TUNING_RUNS
    stop_file(path).touch()  # left by an engine that was killed
    code, output = checkout.run()
    assert (code, "stopped" in output) == (0, False), output
    assert (path / "summary.json").is_file()
    assert keys(checkout.records())[: len(before)] == before
    assert len(set(keys(checkout.records()))) == TUNING_RUNS + CONFIRMATION_RUNS


@pytest.mark.slow
def test_two_engines_share_a_study_lose_no_run_to_a_dead_worker_and_change_no_loss(
    checkout, trained
):
    code, output = checkout.run("--dry-run")
    assert code == 0
    assert "0 runs recorded, about 16 left" in output
    engines = [checkout.start("--workers", count) for count in ("2", "1")]
    checkout.wait_for_records(1)
    wait_for(lambda: kill_a_worker(engines[0], checkout), "a worker of the first engine trains")
    outputs = [engine.communicate(timeout=HANGS)[0] for engine in engines]
    assert [engine.returncode for engine in engines] == [0, 0], outputs
    assert "its worker died (ended by signal 9 (Killed))" in outputs[0]
    records = checkout.records()
    assert len(set(keys(records))) == len(records) == TUNING_RUNS + CONFIRMATION_RUNS
    of_two_workers = losses(trained.records())
    assert losses(records).items() <= of_two_workers.items()


@pytest.mark.slow
@pytest.mark.long
def test_the_example_study_runs_and_has_its_page(checkout):
    text = (config.ROOT / "params" / "studies" / "example.yaml").read_text()
    assert text.count("_steps: 200") + text.count("_interval: 200") == 3
    plan = checkout.folder / "params" / "studies" / "tiny.yaml"
    plan.write_text(text.replace(": 200", ": 40"))  # the same runs, each a fifth as long
    checkout.environment.pop("OELM_DATA")
    code, output = checkout.run("--workers", "3")
    assert code == 0, output
    records = checkout.records()
    assert len({r["seed"] for r in records if r["stage"] == "confirm"}) == 2
    assert {r["arm"] for r in records} == {"trained", "frozen", "frozen Gaussian"}
    command = [sys.executable, "-m", "oelm_lib.cli", "report", "tiny"]
    page = subprocess.run(
        command,
        env=checkout.environment,
        cwd=checkout.folder,
        capture_output=True,
        text=True,
        check=True,
    )
    html = Path(page.stdout.strip()).read_text()
    assert re.search("<b>frozen</b> (raises|lowers|changes) perplexity", html)
    assert "Two seeds on generated text show how a study works" in html
    assert html.count("<details>") == 6
