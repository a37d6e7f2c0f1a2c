import math
import shutil

import pandas as pd
import pytest

from oelm_lib import compare, config
from oelm_lib.compare.pairs import declaration, families, pairs
from oelm_lib.errors import UserError
from oelm_lib.runs import frames
from tests.project_params import copy_params
from tests.runs_factory import make_run


@pytest.fixture
def own_params(tmp_path, monkeypatch):
    """A copy of params/ that a test may change."""
    folder = copy_params(tmp_path)
    monkeypatch.setattr(config.paths, "PARAMS", folder)
    return folder


def test_only_shared_seeds_are_paired(tmp_path):
    for exp, seeds in (("DEMO-01", (1, 2, 3)), ("DEMO-02", (4, 3, 2))):
        for seed in seeds:
            make_run(tmp_path, exp, seed)
    runs = compare.load_runs(outputs=tmp_path)
    (pair,) = pairs(runs)
    arm, base = pair.shared()
    assert arm["seed"].tolist() == base["seed"].tolist() == [2, 3]
    losses = runs.set_index(["id", "seed"])["final_val_loss"]
    expected = [losses["DEMO-02", seed] - losses["DEMO-01", seed] for seed in (2, 3)]
    assert sorted(pair.differences()) == pytest.approx(sorted(expected))


def test_a_failed_seed_counts_and_an_unfinished_one_does_not(tmp_path):
    for seed, state in ((1, "done"), (2, "failed"), (3, "running"), (4, "stopped")):
        make_run(tmp_path, "DEMO-01", seed)
        make_run(tmp_path, "DEMO-02", seed, state=state, done=0.5)
    (pair,) = pairs(compare.load_runs(outputs=tmp_path))
    assert [math.isfinite(nats) for nats in pair.differences()] == [True, False]


def test_rehearsals_are_paired_among_themselves(demo):
    for exp in ("DEMO-01", "DEMO-02"):
        make_run(demo, exp, 42, overrides="train.max_steps=130")
    found = {pair.arm_id: pair.base_id for pair in pairs(compare.load_runs(outputs=demo))}
    (rehearsal,) = [name for name in found if "+" in name]
    assert found[rehearsal].startswith("DEMO-01_baseline+")
    assert found["DEMO-02"] == "DEMO-01"


def test_recorded_and_measured_runs_never_mix(tmp_path):
    for exp in ("GPT-01", "GPT-02"):
        make_run(tmp_path, exp, 42, final_loss=1.5, train_every=10_000)
    parts = [compare.load_runs(outputs=tmp_path), compare.recorded()]
    runs = pd.concat(parts, ignore_index=True)
    table = compare.verdicts(runs)
    both = table[table["id"] == "GPT-02"].set_index("source")["gap"]
    assert both[frames.MEASURED] == 0
    assert both[frames.RECORDED] == pytest.approx(0.0975, abs=5e-5)
    assert all(
        len({pair.base["source"].iloc[0] for pair in family}) == 1 for family in families(runs)
    )


def test_a_missing_baseline_is_a_reason(demo):
    shutil.rmtree(demo / "DEMO-01_baseline")
    (family,) = families(compare.load_runs(outputs=demo))
    assert {pair.reason for pair in family} == {
        "no run of its baseline DEMO-01 among these runs on this corpus and tokenizer"
    }
    assert family[0].differences() == [] and len(family[0].shared()[0]) == 0


def test_a_mistyped_experiment_or_baseline_is_one_line(demo):
    with pytest.raises(UserError, match=r"no run is called 'DMO-01' \(did you mean DEMO-01"):
        compare.load_runs("DEMO-02, DMO-01", demo)
    with pytest.raises(UserError, match=r"no experiment 'DEMO-09' \(did you mean DEMO-0"):
        compare.verdicts(compare.load_runs(outputs=demo), "DEMO-09")
    assert len(compare.load_runs(["GPT-01"], demo)) == 0


def test_a_baseline_may_be_typed_in_small_letters(demo):
    (family,) = families(compare.load_runs("demo-*", demo), "demo-04")
    assert {pair.base_id for pair in family} == {"DEMO-04"}


def test_runs_whose_experiment_file_is_gone_can_be_the_baseline(demo, own_params):
    (own_params / "DEMO-04.yaml").unlink()
    table = compare.verdicts(compare.load_runs(outputs=demo), "DEMO-04").set_index("id")
    assert table["baseline"].to_dict() == dict.fromkeys(
        ("DEMO-01", "DEMO-02", "DEMO-03"), "DEMO-04"
    )


def test_compare_to_and_changes_are_read_from_the_file_as_it_is_now(demo, own_params):
    file = own_params / "DEMO-03.yaml"
    file.write_text(file.read_text().replace("compare_to: DEMO-01", "compare_to: DEMO-04"))
    runs = compare.load_runs(outputs=demo)
    assert {pair.arm_id: pair.base_id for pair in pairs(runs)} == {
        "DEMO-02": "DEMO-01",
        "DEMO-03": "DEMO-04",
        "DEMO-04": "DEMO-01",
    }
    file.write_text(
        file.read_text().replace("changes: [model.freeze_q, ", "changes: [model.qk_scale, ")
    )
    experiment = runs.set_index("id")["experiment"]["DEMO-03"].iloc[0]
    assert declaration(experiment)[1] == {"model.qk_scale", "model.freeze_k"}


def test_the_record_holds_where_the_file_is_gone(demo, own_params):
    (own_params / "DEMO-03.yaml").unlink()
    found = {pair.arm_id: pair.base_id for pair in pairs(compare.load_runs(outputs=demo))}
    assert found["DEMO-03"] == "DEMO-01"
