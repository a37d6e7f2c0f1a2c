import re

import pytest

from oelm_lib import compare, stats
from oelm_lib.compare.confounds import differences
from oelm_lib.config import PARAMS, load_config, paths
from oelm_lib.config.changes import ABSORBED, extra_changes
from oelm_lib.runs.frames import load_folders
from tests.runs_factory import make_run

STEPS = load_config("DEMO-01").train.max_steps
DEMO_WARNINGS = [
    "stories: synthetic text; a gap on it says little about natural language",
    "baseline, OELM-Freeze: one learning rate only; another rate may change the gap",
]
"""What weakens any comparison on the embedded corpus that has enough seeds."""


def warnings_of(outputs, *, arm=None, base=None, seeds=(1, 2)):
    """Warnings of DEMO-02 against DEMO-01 with changes in how either was run."""
    for seed in seeds:
        make_run(outputs, "DEMO-01", seed, documents=0, **(base or {}))
        make_run(outputs, "DEMO-02", seed, documents=0, **(arm or {}))
    return compare.warnings(compare.load_runs(outputs=outputs))


def test_a_fair_comparison_names_only_its_corpus_and_rates(tmp_path):
    assert warnings_of(tmp_path, seeds=range(stats.FEW_SEEDS)) == DEMO_WARNINGS


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (
            {"experiment": {"optim.weight_decay": 0.1}},
            "DEMO-02: optim.weight_decay is 0.1, but 0.01 in its baseline; `changes` does not",
        ),
        (
            {"resolved": {"precision": "bf16"}},
            "DEMO-02: resolved.precision is bf16, but fp32 in its baseline",
        ),
        ({"resolved": {"threads": 8}}, "DEMO-02: resolved.threads is 8, but 1 in its baseline"),
        ({"resolved": {"device_name": "H100"}}, "DEMO-02: resolved.device_name is H100, but "),
        (
            {"resolved": {"compile": True}},
            "DEMO-02: resolved.compile is True, but False in its baseline",
        ),
        ({"corpus": {"manifest_sha256": "f" * 64}}, "DEMO-02: corpus.manifest_sha256 is fff"),
        ({"corpus": {"sample": True}}, "DEMO-02: corpus.sample is True, but False in its baseline"),
        ({"corpus": {"sample": True}}, "stories: a sample of the corpus, not the corpus"),
        ({"overrides": "optim.learning_rate=0.02"}, "optim.learning_rate is 0.02, but 0.01 in"),
        ({"overrides": "train.max_steps=130"}, f"steps is 130, but {STEPS:g} in its baseline"),
        (
            {"overrides": "train.max_steps=130"},
            "a rehearsal of DEMO-02 with train.max_steps=130, not DEMO-02 itself",
        ),
        (
            {"experiment": {"model.position": "t5"}},
            "DEMO-02: model.position = t5 (baseline: learned): a baseline with the same addition is"
            " needed for a PASS",
        ),
    ],
)
def test_each_difference_is_a_warning(tmp_path, change, expected):
    found = warnings_of(tmp_path, arm=change)
    assert any(expected in text for text in found), found
    assert all("\n" not in text for text in found)


@pytest.mark.parametrize(
    ("arm", "base", "is_paired"),
    [
        ({"model.position": "t5"}, {}, False),
        ({"model.position": "t5"}, {"model.position": "alibi"}, True),
        ({"model.position": "t5", "model.dropout": 0.0}, {"model.dropout": 0.0}, True),
        ({"model.position": "rope"}, {}, True),
    ],
)
@pytest.mark.parametrize(
    "machine", [{"device": "cuda"}, {"precision": "bf16"}, {"compile": True}, {}]
)
def test_dropout_is_paired_on_a_plain_cpu_or_where_both_arms_bias_the_scores(
    tmp_path, arm, base, is_paired, machine
):
    dropout = {"model.dropout": 0.1}
    found = warnings_of(
        tmp_path,
        arm={"experiment": dropout | arm, "resolved": machine},
        base={"experiment": dropout | base, "resolved": machine},
        seeds=(1,),
    )
    warned = any("dropout masks are not paired" in text for text in found)
    assert warned == (bool(machine) and not is_paired)


def test_a_declared_recipe_change_still_warns_that_it_mixes(tmp_path):
    change = {"id": "OWN-01", "changes": ["optim.learning_rate", "model.freeze_q"]}
    found = warnings_of(tmp_path, arm={"experiment": change | {"optim.learning_rate": 0.02}})
    mixed = (
        "optim.learning_rate is 0.02, but 0.01 in its baseline, so the gap shows the effect of both"
    )
    assert any(mixed in text for text in found), found
    assert any("model.freeze_k is True" in text and "not declare" in text for text in found)


def test_one_warning_names_all_its_arms(demo):
    found = compare.warnings(compare.load_runs(outputs=demo))
    few = "only 3 seeds: a wide interval, whose width is partly luck"
    assert found[0] == f"DEMO-02, DEMO-03, DEMO-04: {few}"
    assert len(found) == len(set(found)) == 3


def test_one_seed_is_named(tmp_path):
    expected = "DEMO-02: one shared seed: noise and effect cannot be told apart"
    assert warnings_of(tmp_path, seeds=(1,)) == [expected, *DEMO_WARNINGS]


def test_missing_seeds_are_named(tmp_path):
    warnings_of(tmp_path, seeds=(1, 2))
    make_run(tmp_path, "DEMO-01", 3)
    make_run(tmp_path, "DEMO-02", 4)
    found = compare.warnings(compare.load_runs(outputs=tmp_path))
    assert "DEMO-02: no loss with seed 3; only shared seeds are compared" in found
    assert "DEMO-01: no loss with seed 4; only shared seeds are compared" in found


@pytest.mark.parametrize("lost", [("DEMO-02",), ("DEMO-01",), ("DEMO-01", "DEMO-02")])
def test_a_run_that_failed_is_said_to_count_where_its_pair_decides_the_verdict(tmp_path, lost):
    """The list said "only shared seeds are compared" and "not compared" of an UNSTABLE verdict."""
    warnings_of(tmp_path, seeds=(1, 2))
    for exp in ("DEMO-01", "DEMO-02"):
        make_run(tmp_path, exp, 3, state="failed" if exp in lost else "done", done=0.5)
    runs = compare.load_runs(outputs=tmp_path)
    assert compare.verdicts(runs)["verdict"].tolist() == [stats.UNSTABLE]
    found = compare.warnings(runs)
    assert sum(text.endswith("; its pair counts as failed") for text in found) == 1
    assert not any("only shared seeds" in text or "not compared" in text for text in found), found


def test_a_run_that_failed_without_a_counterpart_is_not_compared(tmp_path):
    warnings_of(tmp_path, seeds=(1, 2))
    make_run(tmp_path, "DEMO-02", 3, state="failed", done=0.5)
    runs = compare.load_runs(outputs=tmp_path)
    assert compare.verdicts(runs)["verdict"].tolist() != [stats.UNSTABLE]
    found = compare.warnings(runs)
    assert "DEMO-01: no loss with seed 3; only shared seeds are compared" in found
    assert any("failed" in text and text.endswith("; not compared") for text in found)


def test_rates_that_were_varied_are_not_called_untuned(tmp_path):
    warnings_of(tmp_path, arm={"experiment": {"optim.learning_rate": 0.02}})
    make_run(tmp_path, "DEMO-02", 1, overrides="optim.learning_rate=0.03")
    found = compare.warnings(compare.load_runs(outputs=tmp_path))
    assert "baseline: one learning rate only; another rate may change the gap" in found


def test_an_unfinished_arm_is_not_blamed_for_its_steps(tmp_path):
    make_run(tmp_path, "DEMO-01", 1)
    make_run(tmp_path, "DEMO-02", 1, state="running", done=0.5)
    found = compare.warnings(compare.load_runs(outputs=tmp_path))
    assert any("running at step" in text and text.endswith("; not compared") for text in found)
    assert not any("steps is" in text for text in found)


def test_a_run_that_only_lost_its_timing_is_compared_and_named(tmp_path):
    warnings_of(tmp_path)
    (tmp_path / "DEMO-02_oelm_freeze" / "seed1" / "timing_stats.json").write_text("{")
    runs = compare.load_runs(outputs=tmp_path)
    assert compare.verdicts(runs)["n"].tolist() == [2]
    (text,) = [text for text in compare.warnings(runs) if "timing_stats.json" in text]
    assert "not compared" not in text


def test_arms_of_other_commits_are_named(tmp_path):
    warnings_of(tmp_path)
    for path in tmp_path.glob("DEMO-02*/seed*/config.yaml"):
        path.write_text(path.read_text().replace("commit: 0123", "commit: 9999"))
    found = compare.warnings(compare.load_runs(outputs=tmp_path))
    assert any(text.startswith("DEMO-02: code.commit is 99994567...") for text in found), found


def test_arms_of_one_commit_with_other_uncommitted_changes_are_named(tmp_path):
    warnings_of(tmp_path)
    for path in tmp_path.glob("DEMO-0[12]*/seed*/config.yaml"):
        digit = path.parent.parent.name[6]
        changed = f"dirty: true\n  diff_sha256: {digit * 64}"
        path.write_text(path.read_text().replace("dirty: false", changed))
    found = compare.warnings(compare.load_runs(outputs=tmp_path))
    text = "DEMO-02: code.diff_sha256 is 22222222..., but 11111111... in its baseline"
    assert text in found


def test_differences_list_every_key_and_whether_it_was_declared():
    runs = compare.recorded()
    table = differences(runs.iloc[0], runs.iloc[1]).set_index("key")
    assert table["declared"].all()
    assert set(table.index) == {
        "model.qk_init",
        "model.qk_scale",
        "model.freeze_q",
        "model.freeze_k",
        "optim.learning_rate",
    }
    assert tuple(table.loc["optim.learning_rate", ["first", "second"]]) == (3e-4, 1e-3)
    between = differences(runs.iloc[1], runs.iloc[2])  # both are compared to GPT-01
    assert between["key"].tolist() == ["model.qk_init", "model.qk_scale"]
    assert between["declared"].all()
    unrelated = differences(runs.iloc[0], runs.iloc[4])
    assert not unrelated["declared"].any()


def test_what_the_baselines_file_declares_is_not_declared_by_the_arm(tmp_path, monkeypatch):
    for path in PARAMS.glob("DEMO-0[1-3].yaml"):
        text = path.read_text()
        if path.stem == "DEMO-03":  # DEMO-02 lists in its changes what sets it apart from this one
            text = re.sub("(?m)^compare_to: .*$", "compare_to: DEMO-02", text)
            text = re.sub("(?m)^changes: .*$", "changes: []", text)
        (tmp_path / path.name).write_text(text)
    monkeypatch.setattr(paths, "PARAMS", tmp_path)
    runs = [make_run(tmp_path / "outputs", exp) for exp in ("DEMO-02", "DEMO-03")]
    first, second = (row for _, row in load_folders(runs).iterrows())
    table = differences(first, second)
    assert "model.qk_init" in set(table["key"])
    assert not table["declared"].any()


def test_recorded_arms_differ_in_learning_rate_and_are_the_best_of_many():
    found = compare.warnings(compare.recorded("GPT-0[123]"))
    rate = "optim.learning_rate is 0.001, but 0.0003 in its baseline"
    assert f"GPT-02, GPT-03: {rate}, so the gap shows the effect of both" in found
    best = "recorded by other code; the loss is the best of its evaluations"
    assert f"GPT-01, GPT-02, GPT-03: {best}" in found


def test_warnings_follow_the_baseline_that_is_asked_for(tmp_path):
    for exp in ("DEMO-02", "DEMO-03"):
        make_run(tmp_path, exp, 1)
    runs = compare.load_runs(outputs=tmp_path)
    (missing,) = [text for text in compare.warnings(runs) if "no run of its baseline" in text]
    assert missing.startswith("DEMO-02, DEMO-03: ")
    assert not any("DEMO-03: no run" in text for text in compare.warnings(runs, "DEMO-02"))


def test_absorbed_additions_are_those_that_w_q_and_w_k_alone_can_express():
    from oelm_lib.model.additions import ADDITIONS

    folded = {f"model.{addition.name}" for addition in ADDITIONS if addition.folds}
    # W_q and W_k have no bias, so a trained baseline cannot express qk_bias.
    assert ABSORBED == folded - {"model.qk_bias"} | {"model.qk_tied"}


def test_an_arm_whose_freeze_applies_to_no_layer_is_not_a_frozen_one():
    nothing, baseline = {"model.frozen_layers": []}, load_config("DEMO-01")
    t5 = {"model.position": "t5"}
    assert extra_changes(load_config("DEMO-02", t5), baseline)
    assert extra_changes(load_config("DEMO-02", t5 | nothing), baseline) == []
    assert extra_changes(load_config("DEMO-02", t5), load_config("DEMO-02", nothing))
