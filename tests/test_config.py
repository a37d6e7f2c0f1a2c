import pytest

from oelm_lib import config
from oelm_lib.errors import UserError


@pytest.mark.parametrize(
    ("exp", "overrides", "message"),
    [
        (2, None, r"exp = 2 is not an experiment id such as GPT-02; allowed: CPU-01"),
        ("GPT-99", None, r"no experiment 'GPT-99'.*allowed: CPU-01.*add one as params/<ID>.yaml"),
        ("../GPT-01", None, r"no experiment"),
        (
            "GPT-02",
            "train.batch_size=0",
            r"train.batch_size = 0: should be greater than or equal to 1",
        ),
        (
            "GPT-02",
            "model.num_heads=7",
            r"num_heads = 7 does not divide d_model = 512; use 1, 2, 4, 8",
        ),
        (
            "GPT-02",
            "optim.lr=1",
            r"unknown key optim.lr \(did you mean optim.learning_rate\?\); allowed: model",
        ),
        (
            "GPT-02",
            "train.max_stepz=1",
            r"unknown key train.max_stepz \(did you mean train.max_steps\?\)",
        ),
        ("GPT-02", "optim.learning_rate=true", r"optim.learning_rate: should be a number"),
        ("GPT-02", "train.max_steps=1.5", r"train.max_steps = 1.5: should be a valid integer"),
        ("GPT-02", "train.max_steps=true", r"train.max_steps = True: should be a valid integer"),
        ("GPT-02", "optim.learning_rate=.nan", r"optim.learning_rate = nan"),
        (
            "GPT-02",
            "model.frozen_layers=[7]",
            r"frozen_layers names layer 7; allowed are 0 .. 5 or all",
        ),
        ("GPT-02", "optim.min_learning_rate=1", r"min_learning_rate = 1.0 is above learning_rate"),
        ("GPT-02", "train.max_steps", r"'train.max_steps' is not key=value"),
        ("GPT-02", "train.max_steps=1 train.max_steps=2", r"given twice"),
        ("GPT-02", 5, r"overrides = 5 is not text"),
        ("GPT-02", "data.corpus=2001-99-99", r"the value of data.corpus is not valid YAML"),
        ("GPT-02", 'model.dropout=0.1"', r"model.dropout"),
        (
            "GPT-02",
            "model.key_shift=true model.num_heads=512",
            r"rope and key_shift part a head in halves, but d_head = 1",
        ),
    ],
)
def test_a_mistake_is_one_line_that_names_key_found_and_allowed(exp, overrides, message):
    with pytest.raises(UserError, match=message) as raised:
        config.load_config(exp, overrides)
    assert "\n" not in str(raised.value)


def test_overrides_as_text_and_dict_agree_and_yaml_number_traps_are_repaired():
    as_text = config.load_config(
        "GPT-02", "train.max_steps=50 optim.learning_rate=1e-3 model.frozen_layers=[0, 2]"
    )
    as_dict = config.load_config(
        "GPT-02",
        {"train.max_steps": 50, "optim.learning_rate": "1e-3", "model.frozen_layers": [0, 2]},
    )
    assert as_text == as_dict
    assert as_text.optim.learning_rate == 1e-3
    assert as_text.model.frozen_layers == (0, 2)


def test_only_science_overrides_make_a_rehearsal_in_a_folder_of_its_own():
    experiment = config.load_config("GPT-02")
    machine = config.load_config("GPT-02", "machine.threads=1")
    same = config.load_config("GPT-02", "train.max_steps=100000")
    rehearsal = config.load_config("GPT-02", "train.max_steps=10")
    assert experiment.folder == machine.folder == same.folder == "GPT-02_oelm_freeze"
    assert experiment.kind == machine.kind == same.kind == "experiment"
    assert rehearsal.kind == "rehearsal"
    assert rehearsal.folder.startswith("GPT-02_oelm_freeze+")
    assert rehearsal.label == "Rehearsal, not GPT-02: TinyStories, OELM-Freeze"
    assert rehearsal.folder != config.load_config("GPT-02", "train.max_steps=11").folder


def test_a_recorded_experiment_is_restored_with_its_overrides():
    rehearsal = config.load_config("GPT-02", "train.max_steps=10")
    again = config.parse_experiment(rehearsal.to_dict(), "test", rehearsal.overrides)
    assert again == rehearsal
    assert config.diff_configs(again, config.load_config("GPT-02")) == {
        "train.max_steps": (10, 100000)
    }


def test_a_file_may_not_claim_overrides():
    plain = config.load_config("GPT-02").to_dict() | {"overrides": {"train.max_steps": 1}}
    with pytest.raises(UserError, match="overrides"):
        config.parse_experiment(plain, "test")


def test_the_resolved_experiment_is_a_table_that_marks_overrides_and_escapes_text():
    table = config.load_config("GPT-02", "train.max_steps=10")._repr_html_()
    assert "10 (overridden)" in table
    assert "rehearsal" in table
    assert (
        "<script"
        not in config.load_config("GPT-02").model_copy(update={"title": "<script>"})._repr_html_()
    )


def test_a_broken_file_is_one_line(tmp_path):
    broken = tmp_path / "X.yaml"
    for content in (b"a: [", b"\xff\xfe\x00", b"- 1", b"a: 2001-99-99", b"[" * 10_000):
        broken.write_bytes(content)
        with pytest.raises(UserError) as raised:
            config.read_yaml(broken)
        assert "\n" not in str(raised.value)


def test_an_unknown_key_of_a_file_is_named_whatever_its_letters():
    plain = config.load_config("GPT-02").to_dict()
    plain["optim"] |= {"beta2": 0.9}
    with pytest.raises(UserError, match=r"unknown key optim\.beta2"):
        config.parse_experiment(plain, "test")


def test_overrides_may_hold_brackets_spaces_and_equals_signs():
    groups = [{"match": "[qk]_proj", "learning_rate": 1e-4, "warmup_steps": 1}]
    text = config.as_text({"train.max_steps": 5, "optim.groups": groups})
    assert config.parse_overrides(text) == {"train.max_steps": 5, "optim.groups": groups}
    assert config.load_config("GPT-02", text).optim.groups[0].match == "[qk]_proj"
