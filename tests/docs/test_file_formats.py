"""docs/file-formats.md lists every key of every file, and says of each what the schema says."""

import json
import re
from dataclasses import fields

import numpy as np
import pytest
import yaml

from oelm_lib import runs, training
from oelm_lib.config import ROOT, Experiment
from oelm_lib.config.experiment import SECTIONS, ParameterGroup
from oelm_lib.errors import DONE, FAILED, IN_USE, STOPPED, USER_ERROR
from oelm_lib.runs.notes import Notes
from oelm_lib.runs.schema import CHECKPOINTS, StatusRecord
from oelm_lib.study.records import Record
from oelm_lib.view.budget import PARTS
from oelm_lib.workbench.form import form_fields
from oelm_lib.yaml_text import as_yaml

PAGE = (ROOT / "docs" / "file-formats.md").read_text(encoding="utf-8")
LATE = {
    "status.json": {"job"},
    "summary.json": {"test_scored"},
    "documents.npz": {"test_nats", "test_tokens"},
}
"""File -> keys that it has only later than at the end of training, or only from a queue."""


def section(heading):
    """The text below a heading, up to the next one of its level."""
    level = re.search(rf"^(#+) {re.escape(heading)}$", PAGE, re.MULTILINE).group(1)
    after = PAGE.split(f"\n{level} {heading}\n")[1]
    return re.split(rf"^#{{1,{len(level)}}} ", after, flags=re.MULTILINE)[0]


def rows(text):
    """The cells of each row of the tables in a text."""
    lines = re.findall(r"^\| (.*) \|$", text, re.MULTILINE)
    return [[cell.replace(r"\|", "|") for cell in line.split(" | ")] for line in lines]


def keys(text):
    """The names in the first column of the tables in a text."""
    return {name for cells in rows(text) for name in re.findall(r"`([^`]+)`", cells[0])}


def experiment_rows(heading):
    """Key -> its type, default and meaning, of the tables of four columns below a heading."""
    found = [cells for cells in rows(section(heading)) if len(cells) == 4]
    return {cells[0].strip("`"): cells[1:] for cells in found if cells[0].startswith("`")}


def schema():
    """Key -> its field in the schema, in the order of the page."""
    found = {name: field for name, field in Experiment.model_fields.items() if name not in SECTIONS}
    for name in SECTIONS:
        for key, field in Experiment.model_fields[name].annotation.model_fields.items():
            found[f"{name}.{key}"] = field
            if key == "groups":
                found |= ParameterGroup.model_fields
    return found


def test_the_keys_of_an_experiment_are_those_of_the_schema_with_its_words_and_defaults():
    documented = experiment_rows("Experiment file")
    assert list(documented) == list(schema())
    for key, field in schema().items():
        _, default, meaning = documented[key]
        assert meaning == field.description, key
        value = list(field.default) if isinstance(field.default, tuple) else field.default
        assert default == ("required" if field.is_required() else f"`{as_yaml(value)}`"), key


@pytest.mark.parametrize("field", form_fields(), ids=lambda field: field.key)
def test_the_allowed_values_of_a_key_are_those_of_the_form(field):
    allowed = experiment_rows("Experiment file")[field.key][0]
    if field.options == ("false", "true"):
        assert allowed == "bool"
    elif field.options and field.key != "data.corpus":
        assert allowed == ", ".join(f"`{option}`" for option in field.options)
    bounds = re.findall(r"(?:at least|at most|above) ([\d.,]*\d)", field.allowed)
    assert set(bounds) <= set(re.findall(r"[\d.,]*\d", allowed))


def read(path):
    """The keys of a file of a run folder."""
    if path.suffix == ".yaml":
        return set(yaml.safe_load(path.read_text(encoding="utf-8")))
    if path.suffix == ".npz":
        return set(np.load(path))
    lines = path.read_text(encoding="utf-8").splitlines() if path.suffix == ".jsonl" else None
    plain = [json.loads(line) for line in lines] if lines else [json.loads(path.read_text())]
    return {key for one in plain for key in one}


def test_the_files_of_a_run_have_the_keys_of_the_page(tiny_run):
    run = tiny_run(train__max_steps=6)
    assert read(run.path / "lock.json") == keys(section("lock.json"))
    training.train(run)
    named = ("config.yaml", "metrics.jsonl", "status.json", "timing_stats.json", "summary.json")
    for name in (*named, "documents.npz"):
        assert read(run.path / name) == keys(section(name)) - LATE.get(name, set()), name
    manifest = rows(section("Corpus files").split("key of manifest.json")[1])
    documented = {name for cells in manifest for name in re.findall(r"`([^`]+)`", cells[0])}
    assert set(run.corpus.manifest) == documented
    files = keys(section("Run folder").split("\n### ")[0])
    assert {path.name for path in run.path.iterdir()} <= files
    assert {f"{name}.pt" for name in CHECKPOINTS} <= files
    assert set(runs.read_timing(run)["budget"]) <= set(PARTS)
    described = section("timing_stats.json")
    assert {part for part in PARTS if f"`{part}`" not in described} == set()


def test_the_keys_of_other_records_are_on_the_page():
    lines = section("Study files").split("key of a line")[1]
    assert keys(lines) == set(Record.model_fields)
    assert set(StatusRecord.model_fields) <= keys(section("status.json"))
    assert all(f"`{field.name}`" in section("Run folder") for field in fields(Notes))


def test_the_exit_codes_are_those_of_the_command():
    codes = [int(cells[0]) for cells in rows(section("Exit codes")) if cells[0].isdigit()]
    assert sorted(codes) == sorted((DONE, FAILED, USER_ERROR, IN_USE, STOPPED))
