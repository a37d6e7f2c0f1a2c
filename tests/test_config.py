import os
import subprocess
import sys

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from oelm_lib import config
from oelm_lib.errors import UserError
from oelm_lib.yaml_text import as_yaml, dump_yaml, parse_yaml


@pytest.mark.parametrize(
    ("exp", "overrides", "message"),
    [
        (2, None, r"exp = 2 is not an experiment id such as GPT-02; quote it"),
        (
            "GPT-99",
            None,
            r"no experiment 'GPT-99' \(did you mean GPT-09, .*\); `oelm run` lists all,",
        ),
        ("../GPT-01", None, r"no experiment"),
        (
            "GPT-02",
            "train.batch_size=0",
            r"train.batch_size = 0: should be at least 1",
        ),
        (
            "GPT-02",
            "model.num_heads=7",
            r"num_heads = 7 does not divide d_model = 512; use 1, 2, 4, 8",
        ),
        (
            "GPT-02",
            "optim.lr=1",
            r"unknown key optim.lr \(did you mean optim.learning_rate\?\); allowed are the keys of",
        ),
        (
            "GPT-02",
            "train.max_stepz=1",
            r"unknown key train.max_stepz \(did you mean train.max_steps",
        ),
        ("GPT-02", "optim.learning_rate=true", r"optim.learning_rate = True: should be a number"),
        ("GPT-02", "train.max_steps=1.5", r"train.max_steps = 1.5: should be a whole number"),
        ("GPT-02", "train.max_steps=true", r"train.max_steps = True: should be a whole number"),
        ("GPT-02", "optim.learning_rate=.nan", r"optim.learning_rate = nan"),
        (
            "GPT-02",
            "model.frozen_layers=[7]",
            r"frozen_layers names layer 7; allowed are 0 .. 5 or all",
        ),
        ("GPT-02", "optim.min_learning_rate=1", r"min_learning_rate = 1.0 is above learning_rate"),
        (
            "DEMO-02",
            "model.freeze_from=650",
            r"model.freeze_from = 650 is not before train.max_steps = 650, .*; lower it, or set",
        ),
        ("GPT-02", "train.max_steps", r"'train.max_steps' is not key=value"),
        ("GPT-02", "train.max_steps=1 train.max_steps=2", r"given twice"),
        ("GPT-02", 5, r"overrides = 5 is not text"),
        ("GPT-02", "data.corpus=[", r"the value of data.corpus is not valid YAML"),
        ("GPT-02", 'model.dropout=0.1"', r"model.dropout"),
        (
            "GPT-02",
            "model.key_shift=true model.num_heads=512",
            r"rope and key_shift split a head in halves, but d_head = 1",
        ),
    ],
)
def test_a_mistake_is_one_line_that_names_key_found_and_allowed(exp, overrides, message):
    with pytest.raises(UserError, match=message) as raised:
        config.load_config(exp, overrides)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    "overrides",
    [
        {"model.freeze_from": 649},
        {"model.freeze_from": 650, "train.max_steps": 20},
        {"model.freeze_from": 650, "model.freeze_q": False, "model.freeze_k": False},
        {"model.freeze_from": 650, "model.frozen_layers": []},
    ],
)
def test_a_freeze_that_comes_and_a_short_rehearsal_of_one_are_allowed(overrides):
    assert (
        config.load_config("DEMO-02", overrides).model.freeze_from == overrides["model.freeze_from"]
    )


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


@pytest.mark.parametrize(
    "key", ["train.max_steps", "train.batch_size", "optim.warmup_steps", "model.max_seq_len"]
)
def test_a_number_that_no_run_reaches_is_refused(key):
    with pytest.raises(UserError, match=f"{key} = {10**20}: should be at most"):
        config.load_config("DEMO-02", {key: 10**20})


def test_a_broken_file_is_one_line(tmp_path):
    broken = tmp_path / "X.yaml"
    for content in (b"a: [", b"\xff\xfe\x00", b"- 1", b"a: '", b"[" * 10_000):
        broken.write_bytes(content)
        with pytest.raises(UserError) as raised:
            config.read_yaml(broken)
        assert "\n" not in str(raised.value)


def test_an_unknown_key_of_a_file_is_named_in_any_script():
    plain = config.load_config("GPT-02").to_dict()
    plain["optim"] |= {"beta2": 0.9}
    with pytest.raises(UserError, match=r"unknown key optim\.beta2"):
        config.parse_experiment(plain, "test")


def test_overrides_may_hold_brackets_spaces_and_equals_signs():
    groups = [{"match": "[qk]_proj", "learning_rate": 1e-4, "warmup_steps": 1}]
    text = config.overrides_text({"train.max_steps": 5, "optim.groups": groups})
    assert config.parse_overrides(text) == {"train.max_steps": 5, "optim.groups": groups}
    assert config.load_config("GPT-02", text).optim.groups[0].match.pattern == "[qk]_proj"


@pytest.mark.parametrize(
    ("text", "key", "message"),
    [
        ("train.max_steps=010", "train.max_steps", "'010': should be a whole number"),
        ("train.max_steps=0o10", "train.max_steps", "'0o10': should be a whole number"),
        ("train.max_steps=0x10", "train.max_steps", "'0x10': should be a whole number"),
        ("train.max_steps=1:30", "train.max_steps", "'1:30': should be a whole number"),
        ("optim.learning_rate=1:30", "optim.learning_rate", "'1:30': should be a number"),
        ("optim.learning_rate=1_0.5", "optim.learning_rate", "'1_0.5': should be a number"),
        ("optim.learning_rate=infinity", "optim.learning_rate", "'infinity': should be a number"),
        ("model.freeze_q=yes", "model.freeze_q", "'yes': should be true or false"),
        ("model.freeze_q=on", "model.freeze_q", "'on': should be true or false"),
    ],
)
def test_yaml_1_1_surprises_are_refused(text, key, message):
    with pytest.raises(UserError, match=rf"{key}( =|:) {message}"):
        config.load_config("GPT-02", text)


@pytest.mark.parametrize(
    ("text", "value"),
    {
        "1e-3": 1e-3,
        "1.5e3": 1500.0,
        ".5": 0.5,
        "1.": 1.0,
        "-2": -2,
        "1_000": 1000,
        "true": True,
        "null": None,
        "~": None,
        "": None,
        "off": "off",
        "010": "010",
        "12345e67": "12345e67",
        "2024-01-02": "2024-01-02",
    }.items(),
)
def test_scalars_are_decimal_numbers_booleans_null_or_text(text, value):
    parsed = parse_yaml(text)
    assert (parsed, type(parsed)) == (value, type(value))


@pytest.mark.parametrize("text", ["!!bool x", "!!int ''", "!!float ''", "!!timestamp x"])
def test_a_tag_that_does_not_fit_its_value_is_one_line(text):
    with pytest.raises(ValueError, match="a tag such as !!bool does not fit its value"):
        parse_yaml(f"key: {text}")


PRINTABLE = st.text(st.characters(exclude_categories=("C",)))
SCALARS = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | PRINTABLE


@given(
    st.recursive(
        SCALARS,
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(PRINTABLE, inner, max_size=3),
        max_leaves=8,
    )
)
@example("\xa0")
@example("\u3000a\u2003")
@example("\x85")
@example("a\u2028b\u2029")
def test_dumped_values_are_read_back(value):
    assert parse_yaml(dump_yaml(value)) == value
    assert parse_yaml(as_yaml(value)) == value


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: 1\nb: 2\na: 3", "the key a is given twice; keep one"),
        ("x: {a: 1, a: 1}", "the key a is given twice; keep one"),
        ("[" * 40_000, "nested more than 100 deep"),
        ("a: " * 40_000, "a ':' is not allowed here"),
        ("? [1]\n: 2", "a key is not plain text"),
    ],
)
def test_a_yaml_file_with_double_keys_or_deep_nesting_is_refused(tmp_path, text, message):
    path = tmp_path / "X.yaml"
    path.write_text(text)
    with pytest.raises(UserError, match=message):
        config.read_yaml(path)


@pytest.mark.parametrize("text", ["train.max_steps = 10", "train.max_steps =10  model.dropout= 0"])
def test_spaces_around_the_equals_sign_are_allowed(text):
    assert config.load_config("GPT-02", text).train.max_steps == 10


def test_a_long_value_does_not_flood_the_message():
    with pytest.raises(UserError) as raised:
        config.load_config("GPT-02", {"model.d_model": ["x" * 10_000] * 1000})
    assert len(str(raised.value)) < 300


@pytest.mark.parametrize("typed", ["demo-02", "DEMO-02.yaml", "params/DEMO-02.yaml", " DEMO-02 "])
def test_an_id_is_found_as_people_type_it(typed):
    assert config.load_config(typed).id == "DEMO-02"


def test_files_with_other_names_are_skipped(tmp_path, monkeypatch):
    for name in ("DEMO-02.yaml", "DEMO-02-Copy1.yaml", "notes.yaml"):
        (tmp_path / name).write_text((config.PARAMS / "DEMO-02.yaml").read_text())
    monkeypatch.setattr(config.paths, "PARAMS", tmp_path)
    assert config.experiment_ids() == ["DEMO-02"]
    assert config.skipped_files() == ["DEMO-02-Copy1.yaml", "notes.yaml"]
    assert config.load_config("DEMO-02").id == "DEMO-02"


def test_folders_stay_the_same_in_another_working_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", "/home/me")
    monkeypatch.setenv("OELM_OUTPUTS", "runs")
    monkeypatch.setenv("OELM_DATA", "~/corpora")
    config.fix_folders()
    monkeypatch.chdir("/")
    assert str(config.outputs_dir()) == os.environ["OELM_OUTPUTS"] == str(tmp_path / "runs")
    assert str(config.data_dir()) == os.environ["OELM_DATA"] == "/home/me/corpora"


@pytest.mark.parametrize("layers", [[0, 0], [1, 0]])
def test_frozen_layers_have_one_spelling(layers):
    """Two spellings of one science had two hashes and two folders."""
    with pytest.raises(UserError, match="each layer once, in ascending order"):
        config.load_config("DEMO-02", {"model.frozen_layers": layers})


def test_a_huge_size_is_refused_at_once():
    """The divisors of d_model were searched up to d_model, so the command never ended."""
    huge = 10**12 - 1
    with pytest.raises(UserError, match=r"num_heads = 4 does not divide d_model = 9+; use 1, 3, 7"):
        config.load_config("DEMO-02", {"model.d_model": huge, "model.num_heads": 4})


@pytest.mark.parametrize(
    ("folder", "message"),
    [
        ("/o\udce9", r"OELM_OUTPUTS: '/o\\udce9' is not UTF-8.*choose another"),
        ("~nobody-of-that-name/runs", "no such user"),
        ("runs", "the working folder was deleted"),
    ],
)
def test_a_folder_that_cannot_be_named_is_one_line(tmp_path, monkeypatch, folder, message):
    (tmp_path / "deleted").mkdir()
    monkeypatch.chdir(tmp_path / "deleted")
    (tmp_path / "deleted").rmdir()
    monkeypatch.setenv("OELM_OUTPUTS", folder)
    with pytest.raises(UserError, match=message):
        config.fix_folders()
    monkeypatch.chdir(tmp_path)


def test_a_key_that_an_old_record_lacks_is_off():
    cfg = config.load_config("GPT-02")
    old = {key: value for key, value in cfg.science.items() if key != "model.key_shift"}
    assert config.diff_science(old, cfg.science) == {}
    plain = cfg.to_dict()
    del plain["model"]["key_shift"], plain["optim"]["groups"]
    assert config.parse_experiment(plain, "old") == cfg


def test_mappings_can_be_merged():
    text = "a: &a {x: 1, y: 2}\nb: &b {<<: *a, y: 3}\nc: {<<: *b, z: 4}"
    assert parse_yaml(text)["c"] == {"x": 1, "y": 3, "z": 4}


def test_importing_the_library_is_light_and_offers_load_config():
    code = (
        "import sys, oelm_lib as oelm; assert 'pydantic' not in sys.modules;"
        "assert oelm.load_config('GPT-02').id == 'GPT-02';"
        "from oelm_lib.model import ADDITIONS, qk_share; assert 'torch' not in sys.modules"
    )
    assert subprocess.run([sys.executable, "-c", code], cwd=config.ROOT).returncode == 0
