"""The form of a new experiment: fields, reasons, differences, the file."""

import os
import shutil
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from oelm_lib import config
from oelm_lib.workbench.form import (
    MAIN_KEYS,
    base_values,
    check_form,
    check_html,
    form_fields,
    next_id,
)
from oelm_lib.workbench.form_view import FormView
from oelm_lib.yaml_text import parse_yaml
from tests.project_params import copy_params

NEW = {"id": "DEMO-77"}
NOBODY = 65534


def test_every_key_of_the_schema_is_a_field_with_its_meaning():
    fields = {field.key: field for field in form_fields()}
    assert set(fields) == set(config.flatten(config.load_config("DEMO-02")))
    assert set(MAIN_KEYS) <= set(fields)
    assert all(field.help and field.allowed for field in fields.values())
    assert fields["model.freeze_q"].options == ("false", "true")
    assert fields["model.dropout"].allowed == "number at least 0 and at most 0.99"
    assert "stories" in fields["data.corpus"].options
    assert fields["model.d_model"].allowed == "whole number at least 1"  # not: at most 10**12


@pytest.mark.parametrize("exp", config.experiment_ids())
def test_an_unchanged_form_is_possible_for_every_experiment(exp):
    check = check_form(exp, base_values(exp), {"id": next_id(exp)})
    assert check.reasons == {} and check.text


@pytest.mark.parametrize(
    ("values", "key", "words"),
    [
        ({"model.num_heads": "3"}, "model.num_heads", "does not divide d_model = 64"),
        ({"model.dropout": "2"}, "model.dropout", "at most 0.99"),
        ({"model.dropout": "[1"}, "model.dropout", "is not a value"),
        ({"model.dropout": ""}, "model.dropout", "number"),
        ({"model.frozen_layers": "[7]"}, "model.frozen_layers", "allowed are 0 .. 1 or all"),
        ({"model.frozen_layers": "some"}, "model.frozen_layers", "all or a list"),
        ({"train.max_steps": "1.5"}, "train.max_steps", "whole number"),
        ({"optim.min_learning_rate": "5"}, "optim.min_learning_rate", "lower it"),
        ({"data.tokenizer": "words"}, "data.tokenizer", "gpt2, bpe-<N>"),
    ],
)
def test_the_reason_of_an_impossible_value_stands_beside_its_field(values, key, words):
    check = check_form("DEMO-02", values, NEW)
    assert set(check.reasons) == {key} and words in check.reasons[key]
    assert check.text == ""


def test_every_impossible_value_has_its_own_reason():
    check = check_form("DEMO-02", {"model.dropout": "2", "train.batch_size": "0"}, NEW)
    assert set(check.reasons) == {"model.dropout", "train.batch_size"}


@pytest.mark.parametrize(
    ("words", "key", "text"),
    [
        ({"id": "DEMO-01"}, "id", "exists"),
        ({"id": "../x"}, "id", "capitals"),
        ({"id": ""}, "id", "capitals"),
        (NEW | {"compare_to": "DEMO-99"}, "compare_to", "no experiment"),
    ],
)
def test_an_id_that_exists_and_an_unknown_baseline_are_refused(words, key, text):
    check = check_form("DEMO-02", {}, words)
    assert text in check.reasons[key] and check.text == ""


def test_a_value_that_the_prepared_corpus_does_not_fit_is_refused(stories, monkeypatch):
    monkeypatch.setenv("OELM_DATA", str(stories))
    values = {"data.tokenizer": "bpe-300", "model.vocab_size": "999"}
    assert "300 tokens" in check_form("DEMO-02", values, NEW).reasons["model.vocab_size"]
    values |= {"model.vocab_size": "300", "train.batch_size": "9999999"}
    assert "allowed batch_size" in check_form("DEMO-02", values, NEW).reasons["train.batch_size"]
    values |= {"model.max_seq_len": "9999999", "train.batch_size": "8"}
    assert "allowed max_seq_len" in check_form("DEMO-02", values, NEW).reasons["model.max_seq_len"]


def test_a_new_experiment_can_be_a_baseline():
    check = check_form("DEMO-01", {"train.max_steps": "130"}, NEW | {"compare_to": "none"})
    assert (check.reasons, check.changes, check.warnings) == ({}, [], [])
    assert parse_yaml(check.text)["compare_to"] is None
    assert "compared with nothing" in check_html(check)


def test_differences_are_those_from_the_baseline_and_the_file_declares_them():
    check = check_form("DEMO-02", {"model.freeze_k": "false"}, NEW)
    assert check.compare_to == "DEMO-01"
    assert [key for key, _, _ in check.changes] == [
        "model.qk_init",
        "model.qk_scale",
        "model.freeze_q",
    ]
    plain = parse_yaml(check.text)
    assert plain["changes"] == [key for key, _, _ in check.changes]
    assert plain["model"]["freeze_k"] is False and plain["id"] == "DEMO-77"
    assert check.text == config.new_experiment("DEMO-02", "DEMO-77", "model.freeze_k=false")


def test_the_cost_of_a_run_is_shown_as_one_types_and_memory_that_is_not_there_is_named(form):
    assert "169,216 parameters" in form.summary.value and "does not fit" not in form.summary.value
    form.fields["model.d_model"].field.value = "100000"
    assert (
        "A run costs 80,212,400,512 parameters" in form.summary.value
        and "of memory in fp32" in form.summary.value
    )
    assert "it does not fit" in form.check.warnings[0] and not form.save.disabled
    form.fields["model.d_model"].field.value = "0"
    assert "A run costs" not in form.summary.value and form.save.disabled


def test_the_cost_of_absurd_sizes_takes_no_memory_itself(monkeypatch, tmp_path):
    monkeypatch.setenv("OELM_DATA", str(tmp_path))  # else a prepared corpus refuses the batch
    most = str(10**12)
    values = {key: most for key in ("model.max_seq_len", "model.num_layers", "train.batch_size")}
    check = check_form("DEMO-02", values | {"model.dropout": "0.1"}, NEW)
    assert check.reasons == {} and "does not fit" in check.warnings[0]


def test_a_warning_names_no_id_since_the_form_proposes_the_next_one_after_a_save(form):
    form.fields["model.qk_norm"].field.value = "true"
    form.save.click()
    form.start_from("DEMO-05")
    assert "not the effect of freezing alone" in form.summary.value
    assert "DEMO-06" not in form.summary.value


def test_a_confound_is_named_before_the_run():
    (warning,) = check_form("DEMO-02", {"model.qk_norm": "true"}, NEW).warnings
    assert (
        "model.qk_norm" in warning and "a gap to DEMO-01 is not the effect of freezing" in warning
    )
    assert check_form("DEMO-02", {"model.freeze_k": "false"}, NEW).warnings == []
    two = {"model.qk_norm": "true", "model.position": "t5"}
    (warning,) = check_form("DEMO-02", two, NEW).warnings
    assert warning.startswith(
        "model.qk_norm = true (baseline: false), model.position = t5 (baseline: learned): a gap"
    )
    assert warning.endswith("name a baseline with the same values")


@settings(max_examples=30)
@given(
    st.sampled_from([field.key for field in form_fields()]),
    st.one_of(st.text(max_size=20), st.integers().map(str), st.floats().map(str)),
)
def test_any_text_in_any_field_is_accepted_or_has_a_reason(key, text):
    check = check_form("DEMO-02", {key: text}, NEW)
    assert bool(check.text) != bool(check.reasons)


def test_the_next_id_is_the_first_after_those_that_exist(params):
    assert next_id("DEMO-02") == "DEMO-05" and next_id("GPT-01") == "GPT-18"
    (params / "DEMO-05.yaml").write_text("")
    assert next_id("DEMO-02") == "DEMO-06"


@pytest.fixture
def form(params):
    saved = []
    view = FormView(saved.append)
    view.saved = saved
    view.start_from("DEMO-02")
    return view


def test_the_form_shows_reasons_as_one_types_and_saves_only_what_is_possible(form, params):
    row = form.fields["model.num_heads"]
    assert not form.save.disabled
    row.field.value = "3"
    assert "does not divide" in row.remark.value and form.save.disabled
    form.save.click()
    assert form.saved == [] and not (params / "DEMO-05.yaml").exists()
    row.field.value = "2"
    assert "was 4" in row.remark.value and "model.num_heads" in form.summary.value
    form.save.click()
    assert form.saved == ["DEMO-05"]
    assert "Delete experiment, above, undoes this" in form.message.value
    form.save.click()
    assert form.saved == ["DEMO-05"] and "Change something" in form.message.value
    experiment = config.load_config("DEMO-05")
    assert experiment.model.num_heads == 2 and config.change_problems(experiment) == []
    form.start_from("DEMO-05")
    assert row.field.value == "2" and form.words["id"].field.value == "DEMO-06"
    assert form.words["compare_to"].field.value == "DEMO-01"


def test_an_id_taken_while_one_typed_saves_nothing(form, params):
    (params / "DEMO-05.yaml").write_text("mine")
    form.save.click()
    assert form.saved == [] and (params / "DEMO-05.yaml").read_text() == "mine"
    assert "exists" in form.words["id"].remark.value


@pytest.fixture
def read_only_params(monkeypatch):
    """A copy of params/ that this process may read, not write."""
    folder = Path(tempfile.mkdtemp())  # pytest's own folder lets only its owner in
    copy = copy_params(folder)
    for path in (folder, copy):
        path.chmod(0o555)
    monkeypatch.setattr(config.paths, "PARAMS", copy)
    user = os.geteuid()
    if user == 0:
        os.seteuid(NOBODY)  # no permission stops root
    yield copy
    os.seteuid(user)
    for path in (folder, copy):
        path.chmod(0o755)
    shutil.rmtree(folder)


def test_a_read_only_folder_is_one_line_and_the_form_keeps_what_was_typed(read_only_params):
    saved = []
    form = FormView(saved.append)
    form.start_from("DEMO-02")
    form.words["title"].field.value = "A title"
    form.save.click()
    assert "params/DEMO-05.yaml: cannot be written: Permission denied" in form.message.value
    assert "nothing was saved" in form.message.value and form.message.value.count("<br>") == 0
    assert saved == [] and not (read_only_params / "DEMO-05.yaml").exists()
    assert form.words["title"].field.value == "A title"
