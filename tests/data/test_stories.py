import hashlib
import re
import subprocess
import sys

import pytest

from oelm_lib.data.spec import load_spec
from oelm_lib.data.stories import generate_stories


@pytest.fixture(scope="module")
def made():
    return generate_stories(load_spec("stories").generator)


def test_same_text_in_every_process(made):
    digest = hashlib.sha256("\0".join(made["validation"]).encode()).hexdigest()
    program = (
        "import hashlib\nfrom oelm_lib.data.spec import load_spec\n"
        "from oelm_lib.data.stories import generate_stories\n"
        "made = generate_stories(load_spec('stories').generator)\n"
        "print(hashlib.sha256('\\0'.join(made['validation']).encode()).hexdigest())"
    )
    run = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert run.stdout.strip() == digest


def test_no_story_twice_in_or_across_splits(made):
    stories = [story for split in made.values() for story in split]
    assert len(set(stories)) == len(stories)


def test_text_is_plain_and_varied(made):
    text = " ".join(made["train"])
    assert 1_200 < len(set(re.findall(r"[a-z]+", text.lower()))) < 1_800
    assert not set(re.sub(r"[A-Za-z ,.?!\"]", "", text))
    assert not re.findall(r"\b[Aa] [aeiou]\w+", text)
    assert not re.findall(r"\b[Aa]n [^aeiou]\w+", text)
    assert not re.findall(r"\.\"? [a-z]\w+", text)


def test_opening_names_every_fact_that_call_backs_repeat():
    grammar = load_spec("stories").generator
    facts = {"name", "job", "adj", "object", "place"}
    for opening in grammar.openings:
        assert facts <= {slot.removeprefix("a_") for slot in re.findall(r"{(\w+)}", opening)}
    for sentence in grammar.callbacks.sentences:
        slots = {slot.removeprefix("a_") for slot in re.findall(r"{(\w+)}", sentence)}
        assert slots & facts and slots <= facts | {"he", "his"}
    for sentence in grammar.fillers.sentences:
        assert not facts & {slot.removeprefix("a_") for slot in re.findall(r"{(\w+)}", sentence)}
