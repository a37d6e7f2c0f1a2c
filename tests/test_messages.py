"""A value that a file may not hold: the message names key, value and what is allowed, plainly."""

import re

import pytest

from oelm_lib import config
from oelm_lib.data.spec import CorpusSpec
from oelm_lib.errors import UserError
from oelm_lib.study.plan import Plan
from oelm_lib.yaml_text import parse_yaml

WRONG = (None, True, -1, 1.5, 10**20, float("inf"), "", "Some Text", [], [-1, "x", None], {"a": 1})
"""Values of every kind; a key takes some of them, and refuses the others."""
FOREIGN = re.compile(
    r"\binput\b|\bvalid\b|\bint(eger)?\b|\bstring\b|\bboolean\b|\bdict|\btuple|instance|parse|pattern"
    r"|greater|less than|field required|\bitems?\b",
    re.IGNORECASE,
)
"""Words of pydantic and Python that a message should not hold."""
EXAMPLES = {
    config.Experiment: config.PARAMS / "DEMO-02.yaml",
    CorpusSpec: config.PARAMS / "corpora" / "stories.yaml",
    Plan: config.PARAMS / "studies" / "example.yaml",
}


def places(plain, before=()):
    """Return the place of every value of nested mappings and lists."""
    pairs = plain.items() if isinstance(plain, dict) else enumerate(plain)
    for key, value in pairs:
        yield (*before, key)
        if isinstance(value, dict | list):
            yield from places(value, (*before, key))


def refusals(kind):
    """Return the messages about one wrong value at a time, at every place of a real file."""
    path = EXAMPLES[kind]
    name = {"name": path.stem} if kind is CorpusSpec else {}
    for place in places(parse_yaml(path.read_text())):
        for value in WRONG:
            plain = parse_yaml(path.read_text()) | name
            part = plain
            for key in place[:-1]:
                part = part[key]
            part[place[-1]] = value
            try:
                config.validated(kind, plain, "file")
            except UserError as error:
                yield str(error)


@pytest.mark.parametrize("kind", EXAMPLES)
def test_every_refused_value_is_described_in_plain_words(kind):
    messages = list(refusals(kind))
    for message in messages:
        words = re.sub(r"'[^']*'|\{.*?\}|\[.*?\]", "", message)  # what was found
        assert not FOREIGN.search(words), message
        assert message.startswith("file: ") and "\n" not in message
    assert len(messages) > 100


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ("model.frozen_layers=some", "model.frozen_layers = 'some': should be all or a list"),
        ("model.frozen_layers=0", "frozen_layers = 0: should be all or a list such as [0]"),
        ("model.frozen_layers=[-1]", "model.frozen_layers.0 = -1: should be at least 0"),
        ("train.precision=f", "train.precision = 'f': should be fp32, bf16, fp16 or auto"),
        ("data.tokenizer=words", "data.tokenizer = 'words': should be gpt2, bpe-<N> or ids-<N>"),
        ("model.vocab_size=90000", "model.vocab_size = 90000: should be at most 65,536"),
        ("optim.betas=[1]", "optim.betas.0 = 1: should be below 1"),
        ("optim.betas=[0, 0, 0]", "should be a list of length 2 or less"),
        ("optim.learning_rate=.inf", "optim.learning_rate = inf: should be a finite number"),
    ],
)
def test_a_message_names_the_key_the_value_and_what_is_allowed(overrides, message):
    with pytest.raises(UserError) as raised:
        config.load_config("DEMO-02", overrides)
    assert message in str(raised.value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"start": "x"}, "tune.start = 'x': should be a number or a mapping of keys"),
        ({"start": {"stories": "x"}}, "tune.start.stories = 'x': should be a number"),
        ({"seeds": [1]}, "tune.seeds = [1]: should be a list of length 2 or more"),
    ],
)
def test_a_value_of_several_kinds_has_one_message(change, message):
    plain = parse_yaml(EXAMPLES[Plan].read_text())
    plain["tune"] |= change
    with pytest.raises(UserError) as raised:
        config.validated(Plan, plain, "plan")
    assert str(raised.value) == f"plan: {message}"


def test_a_key_that_a_mapping_does_not_know_is_named():
    plain = parse_yaml(EXAMPLES[CorpusSpec].read_text()) | {"name": "x", "rows": {"dev": 1}}
    with pytest.raises(
        UserError, match=r"unknown key rows\.dev; allowed: train, validation or test"
    ):
        config.validated(CorpusSpec, plain, "file")
