import pytest

from oelm_lib.compare import confounds, tables
from oelm_lib.config import load_config
from tests.runs_factory import make_run

STEPS = load_config("DEMO-01").train.max_steps


def compared(outputs, *, arm=None, base=None, seeds=(1, 2)):
    """Warnings of DEMO-02 against DEMO-01 with changes in how either was run."""
    for seed in seeds:
        make_run(outputs, "DEMO-01", seed, **(base or {}))
        make_run(outputs, "DEMO-02", seed, **(arm or {}))
    return confounds.warnings(tables.load_runs(outputs=outputs))


def test_a_fair_comparison_has_no_warning(tmp_path):
    assert compared(tmp_path) == []


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (
            {"experiment": {"optim.weight_decay": 0.1}},
            "optim.weight_decay differs, undeclared: 0.01 in",
        ),
        (
            {"resolved": {"precision": "bf16"}},
            "resolved.precision differs: fp32 in DEMO-01_baseline, bf16 in",
        ),
        (
            {"resolved": {"threads": 8}},
            "resolved.threads differs: 1 in DEMO-01_baseline, 8 in DEMO-02_oelm_freeze.",
        ),
        ({"resolved": {"device_name": "H100"}}, "resolved.device_name differs"),
        ({"resolved": {"compile": True}}, "resolved.compile differs"),
        ({"corpus": {"manifest_sha256": "f" * 64}}, "corpus.manifest_sha256 differs: "),
        ({"corpus": {"sample": True}}, "corpus.sample differs: False in DEMO-01_baseline, True in"),
        (
            {"overrides": "optim.learning_rate=0.02"},
            "optim.learning_rate differs, undeclared: 0.01 in",
        ),
        ({"overrides": "train.max_steps=130"}, "is a rehearsal, not DEMO-02: train.max_steps=130."),
        (
            {"overrides": "train.max_steps=130"},
            f"steps differs: {STEPS:g} in DEMO-01_baseline, 130 in",
        ),
    ],
)
def test_each_difference_is_a_warning(tmp_path, change, expected):
    found = compared(tmp_path, arm=change)
    assert any(expected in text for text in found), found
    assert all("\n" not in text for text in found)


def test_a_declared_recipe_change_still_warns_that_it_mixes(tmp_path):
    change = {
        "experiment": {
            "optim.learning_rate": 0.02,
            "changes": ["optim.learning_rate", "model.freeze_q"],
        }
    }
    found = compared(tmp_path, arm=change)
    assert any(
        "learning rate differs between the arms (0.01 in DEMO-01_baseline, 0.02 in" in text
        for text in found
    )
    assert any("model.freeze_k differs, undeclared" in text for text in found)


def test_one_seed_is_named(tmp_path):
    assert compared(tmp_path, seeds=(1,)) == [
        "DEMO-02_oelm_freeze and DEMO-01_baseline share one seed: the interval is unknown."
    ]


def test_missing_seeds_are_named(tmp_path):
    compared(tmp_path, seeds=(1, 2))
    make_run(tmp_path, "DEMO-01", 3)
    make_run(tmp_path, "DEMO-02", 4)
    found = confounds.warnings(tables.load_runs(outputs=tmp_path))
    assert "DEMO-02_oelm_freeze lacks seed 3; only shared seeds are compared." in found
    assert "DEMO-01_baseline lacks seed 4; only shared seeds are compared." in found


def test_a_sample_beside_a_complete_corpus_is_named(tmp_path):
    make_run(tmp_path, "DEMO-01", 1)
    make_run(tmp_path, "GPT-01", 1, corpus={"sample": True}, train_every=10_000)
    found = confounds.warnings(tables.load_runs(outputs=tmp_path))
    assert "Samples (tinystories-phase3) stand beside complete corpora (stories)." in found


def test_an_unfinished_arm_is_not_blamed_for_its_steps(tmp_path):
    make_run(tmp_path, "DEMO-01", 1)
    make_run(tmp_path, "DEMO-02", 1, state="running", done=0.5)
    found = confounds.warnings(tables.load_runs(outputs=tmp_path))
    assert any("running at step" in text and text.endswith("; not compared.") for text in found)
    assert not any("steps differs" in text for text in found)


def test_a_run_that_only_lost_its_timing_is_compared_and_named(tmp_path):
    compared(tmp_path)
    (tmp_path / "DEMO-02_oelm_freeze" / "seed1" / "timing_stats.json").write_text("{")
    runs = tables.load_runs(outputs=tmp_path)
    assert tables.verdicts(runs)["n"].tolist() == [2]
    (text,) = confounds.warnings(runs)
    assert "timing_stats.json" in text and "not compared" not in text


def test_arms_of_other_commits_are_named(tmp_path):
    compared(tmp_path)
    for path in tmp_path.glob("DEMO-02*/seed*/config.yaml"):
        path.write_text(path.read_text().replace("commit: 0123", "commit: 9999"))
    found = confounds.warnings(tables.load_runs(outputs=tmp_path))
    assert any(text.startswith("code.commit differs: 01234567... in") for text in found), found


def test_differences_list_every_key_and_whether_it_was_declared(tmp_path):
    runs = tables.recorded()
    table = confounds.differences(runs.iloc[0], runs.iloc[1]).set_index("key")
    assert table["declared"].all()
    assert set(table.index) == {
        *(
            "model.qk_init",
            "model.qk_scale",
            "model.freeze_q",
            "model.freeze_k",
            "optim.learning_rate",
        )
    }
    assert tuple(table.loc["optim.learning_rate", ["first", "second"]]) == (3e-4, 1e-3)
    between = confounds.differences(runs.iloc[1], runs.iloc[2])  # both are compared to GPT-01
    assert between["key"].tolist() == ["model.qk_init", "model.qk_scale"]
    assert between["declared"].all()
    unrelated = confounds.differences(runs.iloc[0], runs.iloc[4])
    assert not unrelated["declared"].any()


def test_recorded_results_say_that_other_code_made_them():
    (text,) = [
        text for text in confounds.warnings(tables.recorded("GPT-0[12]")) if "other code" in text
    ]
    assert text.startswith("GPT-01, GPT-02: recorded by other code")


def test_warnings_follow_the_baseline_that_is_asked_for(tmp_path):
    for exp in ("DEMO-02", "DEMO-03"):
        make_run(tmp_path, exp, 1)
    runs = tables.load_runs(outputs=tmp_path)
    assert sum("no run of its baseline" in text for text in confounds.warnings(runs)) == 2
    against = confounds.warnings(runs, "DEMO-02")
    assert not any("DEMO-03_oelm_random: no run" in text for text in against)
