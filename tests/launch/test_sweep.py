"""A plan becomes experiment files with stable ids; what has ended is recorded once, whoever trained it."""

import json
import os
import shutil
import signal
import subprocess
import sys

import pytest
import yaml

from oelm_lib import config
from oelm_lib.errors import UserError
from oelm_lib.launch import sweep
from oelm_lib.runs.reading import read_config
from oelm_lib.study.records import append_record, make_record, read_records
from tests.conftest import TINY_RUN

FROZEN = {
    "model.freeze_q": True,
    "model.freeze_k": True,
    "model.qk_init": "orthogonal",
    "model.qk_scale": 1.0,
}
PLAN = {
    "question": "Does it work?",
    "base": "DEMO-01",
    "set": TINY_RUN,
    "corpora": {"stories": [3, 4]},
    "learning_rates": [1e-3, 3e-3],
    "test": True,
    "arms": {
        "baseline": {},
        "rope": {"set": {"model.position": "rope"}, "learning_rates": [2e-3]},
        "frozen": {"set": FROZEN},
        "frozen, rope": {
            "set": FROZEN | {"model.position": "rope"},
            "baseline": "rope",
            "learning_rates": [1e-3],
        },
    },
}


def plan(**changes):
    return sweep.Plan.model_validate(PLAN | changes)


def test_a_plan_becomes_complete_files_that_say_what_they_change(tmp_path, tiny_env):
    cells = sweep.make_cells(plan(), tmp_path)
    assert len(cells) == 12 and [cell.job.seed for cell in cells] == 6 * [3] + 6 * [4]
    assert all(cell.job.test for cell in cells)
    files = sorted(tmp_path.glob("*.yaml"))
    made = {file.stem: config.parse_experiment(config.read_yaml(file), file.name) for file in files}
    assert list(made) == [f"STUDY-000{n}" for n in range(1, 7)]
    for exp, cfg in made.items():
        assert cfg.id == exp
        base = made.get(cfg.compare_to)
        assert list(cfg.changes) == (list(config.diff_configs(base, cfg)) if base else [])
        assert (base is None) == (exp in ("STUDY-0001", "STUDY-0002"))
        if base:
            assert (
                base.optim.learning_rate == min(1e-3, cfg.optim.learning_rate)
                or base is made["STUDY-0002"]
            )
    assert made["STUDY-0006"].model.position == "rope" and made["STUDY-0006"].slug == "frozen_rope"
    assert yaml.safe_load(files[0].read_text())["machine"] == {"device": "cpu", "threads": 1}


def test_an_extended_plan_renumbers_nothing(tmp_path, tiny_env):
    before = {cell.config.id: cell.config for cell in sweep.make_cells(plan(), tmp_path)}
    texts = {file.name: file.read_bytes() for file in tmp_path.iterdir()}
    arms = {"baseline": {}, "tied": {"set": {"model.qk_tied": True}}} | dict(
        list(PLAN["arms"].items())[1:]
    )
    after = {
        c.config.id: c.config
        for c in sweep.make_cells(plan(arms=arms, learning_rates=[1e-2, 3e-3, 1e-3]), tmp_path)
    }
    assert {exp: after[exp] for exp in before} == before
    assert {name: (tmp_path / name).read_bytes() for name in texts} == texts
    assert set(after) - set(before) == {f"STUDY-{n:04d}" for n in range(7, 12)}
    (tmp_path / "STUDY-0002.yaml").unlink()
    sweep.make_cells(plan(), tmp_path)
    assert (
        not (tmp_path / "STUDY-0002.yaml").exists() and (tmp_path / "STUDY-0012.yaml").is_file()
    )  # no id twice


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"arms": {"frozen": {"set": FROZEN}}}, "arms begins with `baseline: {}`"),
        ({"arms": PLAN["arms"] | {"x": {"baseline": "y"}}}, "baseline = 'y' is no arm"),
        ({"seeds": [1]}, "unknown key seeds"),
        ({"learning_rates": [0]}, "learning_rates"),
    ],
)
def test_a_wrong_plan_is_one_line(tmp_path, changes, message):
    (tmp_path / "plan.yaml").write_text(yaml.safe_dump(PLAN | changes))
    with pytest.raises(UserError, match=message):
        sweep.read_plan(tmp_path / "plan.yaml")


def test_a_torn_record_is_dropped_and_a_broken_one_told(tmp_path):
    path = tmp_path / "study" / "runs.jsonl"
    for seed in (1, 2):
        append_record({"id": "STUDY-0001", "seed": seed, "loss": 1.0}, path)
    path.write_bytes(path.read_bytes() + b'{"id": "STUDY-0001", "se')
    assert [record["seed"] for record in read_records(path)] == [1, 2]
    append_record({"id": "STUDY-0001", "seed": 2, "loss": 2.0}, path)
    assert [(record["seed"], record["loss"]) for record in read_records(path)] == [
        (1, 1.0),
        (2, 2.0),
    ]
    path.write_bytes(b"{}\n" + path.read_bytes())
    with pytest.raises(UserError, match="line 1 is not a record"):
        read_records(path)


def test_finished_runs_are_recorded_once_and_count_when_their_folder_is_gone(
    tmp_path, tiny_env, tiny_run
):
    from oelm_lib.training import train
    from oelm_lib.training import score_test_split

    records, asked = tmp_path / "runs.jsonl", plan(corpora={"stories": [3]}, learning_rates=[1e-3])
    cells = sweep.make_cells(asked, tmp_path / "files")
    cell = next(cell for cell in cells if cell.arm == "frozen")
    run = tiny_run("DEMO-02", 3)
    train(run.config, run)
    shutil.copytree(run.path, cell.job.path)
    assert (
        len(sweep.record_finished(asked, "stage1", cells, records)) == 4
    )  # trained, but not scored on test
    loss = score_test_split(cell.job.path)
    left = sweep.record_finished(asked, "stage1", cells, records)
    assert [cell.arm for cell in left] == ["baseline", "rope", "frozen, rope"]
    (record,) = read_records(records)
    assert (record["plan"], record["arm"], record["baseline"]) == ("stage1", "frozen", "baseline")
    assert record["final_test_loss"] == pytest.approx(loss)
    documents = record["test_documents"]
    assert sum(documents["nats"]) / sum(documents["tokens"]) == pytest.approx(loss, rel=1e-4)
    assert (
        record["evals"][-1][0] == 24
        and record["frozen"][0]["sha256_start"] == record["frozen"][0]["sha256_end"]
    )
    assert (
        record["corpus"]["splits"]["test"]["sha256"]
        == run.corpus.manifest["splits"]["test"]["sha256"]
    )
    probes = record["probes"]
    assert probes["share_of_repeated_bigrams"] + probes["share_of_other_tokens"] == pytest.approx(
        1, abs=1e-4
    )
    assert 0 <= probes["entropy"] <= 1 and probes["q_orthogonality_error"] < 1e-5
    append_record({key: value for key, value in record.items() if key != "probes"}, records)
    assert (
        sweep.record_finished(asked, "stage1", cells, records) == left
    )  # and its probes are made again
    assert read_records(records) == [record]
    assert str(tmp_path) not in records.read_text()
    assert read_config(cell.job.path)["code"]["commit"] == record["commit"]


def test_only_a_record_of_the_same_experiment_counts(tmp_path, tiny_env, tiny_run):
    records, asked = tmp_path / "runs.jsonl", plan(corpora={"stories": [3]}, test=False)
    cells = sweep.make_cells(asked, tmp_path / "files")
    science = cells[0].config.science
    record = {"id": cells[0].config.id, "seed": 3, "science": science, "final_test_loss": None}
    append_record(record, records)
    assert cells[0] not in sweep.record_finished(asked, "p", cells, records)
    append_record(
        record | {"science": {k: v for k, v in science.items() if k != "model.position"}}, records
    )
    assert cells[0] not in sweep.record_finished(
        asked, "p", cells, records
    )  # made before the key came into being
    append_record(record | {"science": science | {"train.max_steps": 23}}, records)
    assert cells[0] in sweep.record_finished(asked, "p", cells, records)
    assert cells[0] in sweep.record_finished(plan(corpora={"stories": [3]}), "p", cells, records)


def test_a_corpus_other_than_the_records_read_is_refused_before_anything_is_trained(
    tmp_path, tiny_env, monkeypatch
):
    monkeypatch.setattr(sweep, "RECORDS", tmp_path / "runs.jsonl")
    monkeypatch.setattr(sweep, "FOLDER", tmp_path / "files")
    (tmp_path / "plan.yaml").write_text(yaml.safe_dump(PLAN))
    corpus = {"name": "stories", "tokenizer": "bpe-300", "manifest_sha256": "0" * 64}
    record = {"id": "STUDY-9999", "seed": 3, "corpus": corpus, "wall_seconds": 1.0, "steps": 1}
    append_record(record, tmp_path / "runs.jsonl")
    with pytest.raises(UserError, match="other content than STUDY-9999 in runs"):
        sweep.sweep(tmp_path / "plan.yaml", dry_run=False, workers=1)
    assert not config.outputs_dir().exists() or not any(config.outputs_dir().iterdir())


@pytest.mark.slow
def test_a_killed_sweep_goes_on_and_another_machine_takes_it_from_the_records(tmp_path, stories):
    """The checkout is copied, since a sweep writes experiment files and records into it."""
    clone = tmp_path / "clone"
    for name in ("oelm_lib", "params", "notebooks"):
        shutil.copytree(
            config.ROOT / name, clone / name, ignore=shutil.ignore_patterns("__pycache__", "study")
        )
    slow = TINY_RUN | {"train.max_steps": 300}
    arms = {"baseline": {}, "frozen": {"set": FROZEN}}
    text = yaml.safe_dump(PLAN | {"set": slow, "learning_rates": [1e-3], "arms": arms})
    (clone / "plan.yaml").write_text(text)
    environment = os.environ | {"OELM_DATA": str(stories), "PYTHONPATH": str(clone)}
    environment["OELM_OUTPUTS"] = str(tmp_path / "outputs")
    command = [sys.executable, "-m", "oelm_lib.cli", "sweep", "plan.yaml"]

    def call(*more):
        done = subprocess.run(
            [*command, *more], cwd=clone, env=environment, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    said = call("--dry-run")
    assert "4 runs: 0 recorded before, 4 to go" in said and not (clone / "reports").exists()
    process = subprocess.Popen(
        command, cwd=clone, env=environment, stdout=subprocess.PIPE, text=True
    )
    while ": done in" not in process.stdout.readline():
        assert process.poll() is None
    os.kill(process.pid, signal.SIGKILL)
    call()
    records = read_records(clone / "reports" / "study" / "runs.jsonl")
    assert sorted((r["arm"], r["seed"]) for r in records) == [
        ("baseline", 3),
        ("baseline", 4),
        ("frozen", 3),
        ("frozen", 4),
    ]
    assert all(record["final_test_loss"] for record in records)
    shutil.rmtree(tmp_path / "outputs")
    assert "4 runs: 4 recorded before, 0 to go" in call()
    assert not (tmp_path / "outputs").exists()
    assert len((clone / "reports" / "study" / "runs.jsonl").read_text().splitlines()) == 4
    assert (
        json.loads((clone / "reports/study/runs.jsonl").read_text().splitlines()[0])["plan"]
        == "plan"
    )


def test_make_record_needs_no_test_documents(tiny_run):
    from oelm_lib.training import train

    run = tiny_run("DEMO-01")
    train(run.config, run)
    record = make_record(run.path)
    assert record["final_test_loss"] is None and "test_documents" not in record
