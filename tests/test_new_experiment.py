"""`changes`: computed for a new experiment, checked for one that exists."""

import re

import pytest

from oelm_lib import config
from oelm_lib.arms import arm_name
from oelm_lib.errors import UserError
from oelm_lib.yaml_text import parse_yaml


@pytest.fixture
def params(tmp_path, monkeypatch):
    """A params/ folder of this test with the demo's experiments."""
    for path in config.PARAMS.glob("DEMO-0[1-4].yaml"):
        (tmp_path / path.name).write_text(path.read_text())
    monkeypatch.setattr(config.paths, "PARAMS", tmp_path)
    return tmp_path


def test_a_new_experiment_declares_what_differs_from_its_baseline(params):
    text = config.new_experiment("DEMO-02", "DEMO-05", "model.delta_rank=4 train.max_steps=700")
    (params / "DEMO-05.yaml").write_text(text)
    made, base = config.load_config("DEMO-05"), config.load_config("DEMO-02")
    assert config.diff_configs(base, made) == {
        "model.delta_rank": (0, 4),
        "train.max_steps": (650, 700),
    }
    assert (made.id, made.compare_to) == ("DEMO-05", "DEMO-01")
    assert made.slug == "oelm_freeze_delta_rank_4_max_steps_700"
    assert made.title == "Stories, OELM-Freeze, delta_rank=4, max_steps=700"
    assert set(made.changes) == {*base.changes, "model.delta_rank", "train.max_steps"}
    assert config.change_problems(made) == []
    assert text.count("key_shift") == 0


@pytest.mark.parametrize(
    ("override", "slug"),
    [
        ("model.freeze_q=false", "oelm_freeze_freeze_q_false"),
        ("model.frozen_layers=[0]", "oelm_freeze_frozen_layers_0"),
        ("optim.learning_rate=0.002", "oelm_freeze_learning_rate_0_002"),
    ],
)
def test_the_slug_says_which_value_a_changed_key_has(params, override, slug):
    text = config.new_experiment("DEMO-02", "DEMO-05", override)
    assert parse_yaml(text)["slug"] == slug


def test_the_title_uses_the_words_of_the_glossary(params):
    text = config.new_experiment("DEMO-02", "DEMO-05", "model.qk_scale=2 model.dropout=0.1")
    made = config.parse_experiment(parse_yaml(text), "test")
    assert made.title == "Stories, OELM-Freeze, Q/K rows of norm 2.0, dropout=0.1"
    assert "qk_init=orthogonal, Q/K rows of norm 2.0, freeze_q=True" in made.question
    assert arm_name(made) == "OELM-Freeze, Q/K rows of norm 2.0, dropout=0.1"
    rehearsal = config.load_config("DEMO-02", "model.qk_scale=2")
    assert arm_name(rehearsal) == "OELM-Freeze, Q/K rows of norm 2.0"


def test_a_new_experiment_of_a_baseline_is_compared_with_it(params):
    text = config.new_experiment("DEMO-01", "DEMO-06", {"model.qk_norm": True}, title="A: b")
    made = config.parse_experiment(parse_yaml(text), "test")
    assert (made.compare_to, made.changes, made.title) == ("DEMO-01", ("model.qk_norm",), "A: b")


@pytest.mark.parametrize("key", ["title", "question"])
def test_words_that_are_not_utf8_are_refused(params, key):
    with pytest.raises(UserError, match=f"{key} = .*: should be UTF-8 text"):
        config.new_experiment("DEMO-02", "DEMO-05", **{key: "caf\udce9"})


@pytest.mark.parametrize(
    ("new_id", "overrides", "message"),
    [
        ("DEMO-02", "", "params/DEMO-02.yaml exists; choose another id"),
        ("demo5", "", "id = 'demo5': should be capitals, a hyphen and 2 to 4 digits"),
        ("../X-01", "", "should be capitals"),
        ("DEMO-05", "model.d_model=0", "model.d_model = 0: should be at least 1"),
        ("DEMO-05", "model.nothing=0", "unknown key model.nothing"),
    ],
)
def test_a_mistake_is_refused(params, new_id, overrides, message):
    with pytest.raises(UserError, match=message):
        config.new_experiment("DEMO-02", new_id, overrides)


@pytest.mark.parametrize("exp", ["DEMO-01", "DEMO-02"])
def test_the_text_of_a_file_is_that_of_its_experiment(params, exp):
    cfg = config.load_config(exp)
    text = config.experiment_yaml(cfg)
    assert config.parse_experiment(parse_yaml(text), "test") == cfg
    assert len(text.splitlines()) == len((params / f"{exp}.yaml").read_text().splitlines())


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        ("compare_to: DEMO-01", "compare_to: DEMO-10", r"names DEMO-10, .* \(did you mean DEMO-0"),
        ("compare_to: DEMO-01", "compare_to: DEMO-02", "compare_to is the experiment itself"),
        ("compare_to: DEMO-01", "compare_to: null", r"nothing is changed; write `changes: \[\]`"),
        (
            "model.qk_scale, ",
            "",
            r"differs from DEMO-01; write `changes: \[model.qk_init, model.qk_scale, "
            r"model.freeze_q, model.freeze_k\]`",
        ),
        ("max_steps: 650", "max_steps: 65", r"model.freeze_k, train.max_steps\]`"),
    ],
)
def test_a_wrong_declaration_is_one_line_with_the_line_to_paste(params, old, new, problem):
    path = params / "DEMO-02.yaml"
    assert config.change_problems(config.load_config("DEMO-02")) == []
    path.write_text(path.read_text().replace(old, new))
    problems = config.change_problems(config.load_config("DEMO-02"))
    assert len(problems) == 1
    assert re.search(problem, problems[0]), problems


def test_a_file_of_an_arm_that_no_step_freezes_is_neither_made_nor_read(params):
    late = {"model.freeze_from": 650, "train.max_steps": 100}
    with pytest.raises(UserError, match=r"new experiment DEMO-77: model.freeze_from = 650 is"):
        config.new_experiment("DEMO-02", "DEMO-77", late)
    path = params / "DEMO-02.yaml"
    path.write_text(path.read_text().replace("\nmodel:", "\nmodel:\n  freeze_from: 650"))
    with pytest.raises(UserError, match=r"DEMO-02.yaml: model.freeze_from = 650 is not before"):
        config.load_config("DEMO-02")


def test_a_rehearsal_is_checked_by_its_file(params):
    assert config.change_problems(config.load_config("DEMO-02", "train.max_steps=3")) == []


def test_the_question_names_every_difference_from_the_baseline_and_not_from_the_base():
    text = config.new_experiment("DEMO-02", "DEMO-77", {"model.dropout": 0.1})
    asked = parse_yaml(text)["question"]
    for part in ("qk_init=orthogonal", "freeze_q=True", "dropout=0.1", "against DEMO-01?"):
        assert part in asked, asked
