"""The form of a new experiment, as data: its fields from the schema, and what is wrong with values.

The same as `oelm new ID --from BASE --set KEY=VALUE ...`: config.new_experiment makes the file.
"""

import re
from dataclasses import dataclass, field
from html import escape
from typing import Any

import yaml
from pydantic import ValidationError

from oelm_lib.config import (
    SECTIONS,
    Experiment,
    as_yaml,
    check_new_id,
    confounds,
    diff_configs,
    experiment_ids,
    find_id,
    flatten,
    load_config,
    new_experiment,
    parse_experiment,
    parse_yaml,
)
from oelm_lib.config.fields import LARGEST
from oelm_lib.config.messages import describe_errors, shorten
from oelm_lib.config.new import NO_BASELINE
from oelm_lib.data.corpus import read_corpus
from oelm_lib.data.spec import corpus_names
from oelm_lib.errors import UserError
from oelm_lib.markup import html_table
from oelm_lib.runs.folder import check_fit
from oelm_lib.view.tables import tone_colour
from oelm_lib.workbench.experiment import cost_line, memory_warnings
from oelm_lib.workbench.table import LEFT, TABLE, warnings_html

MAIN_KEYS = (
    "model.qk_init",
    "model.qk_scale",
    "model.freeze_q",
    "model.freeze_k",
    "model.position",
    "model.d_model",
    "model.num_layers",
    "model.num_heads",
    "model.dropout",
    "data.corpus",
    "optim.learning_rate",
    "train.max_steps",
    "train.batch_size",
)
"""Keys that stand before the folded ones."""
WORDS = ("id", "title", "question", "compare_to")
"""Keys of the file's head that the form asks for."""
BOUNDS = {
    "gt": "above",
    "exclusiveMinimum": "above",
    "ge": "at least",
    "minimum": "at least",
    "lt": "below",
    "le": "at most",
    "maximum": "at most",
}
TYPES = {"integer": "whole number", "number": "number", "array": "list", "string": "text"}


@dataclass(frozen=True)
class FormField:
    """A key of an experiment as a field of the form.

    Attributes:
        key: Dotted key, e.g. model.dropout.
        options: The values to choose from, as YAML text; empty: any text.
        allowed: Type and bounds in words.
        help: What the key means: its docstring in the schema.
    """

    key: str
    options: tuple[str, ...]
    allowed: str
    help: str


@dataclass
class FormCheck:
    """What the values of a form amount to.

    Attributes:
        reasons: Key -> why its value is impossible; "" stands for the form as a whole.
        changes: Key, value of the baseline, value of the new experiment.
        warnings: What weakens the comparison with the baseline, and memory that is not there.
        cost: Parameters, memory and arithmetic of a run; "" where there is a reason against it.
        text: The file; "" where there is a reason against it.
    """

    reasons: dict[str, str] = field(default_factory=dict)
    changes: list[tuple[str, str, str]] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    compare_to: str = ""
    cost: str = ""
    text: str = ""


def form_fields() -> list[FormField]:
    """Return every key of the sections as a field, in the order of the schema."""
    schema = Experiment.model_json_schema()
    return [
        _field(f"{name}.{key}", properties)
        for name in SECTIONS
        for key, properties in _properties(schema, name).items()
    ]


def base_values(base: str) -> dict[str, str]:
    """Return dotted key -> YAML text of an experiment. Raises UserError."""
    values = flatten(load_config(base))
    return {key: as_yaml(value) for key, value in values.items()}


def next_id(base: str) -> str:
    """Return the first free id after those with the prefix of another."""
    prefix, _, digits = base.partition("-")
    numbers = [
        int(exp.partition("-")[2]) for exp in experiment_ids() if exp.partition("-")[0] == prefix
    ]
    return f"{prefix}-{max(numbers, default=0) + 1:0{len(digits)}d}"


def check_form(base: str, values: dict[str, str], words: dict[str, str]) -> FormCheck:
    """Check the values of a form and make the file.

    Args:
        base: Experiment that the form started from.
        values: Dotted key -> text of its field; keys left out keep the value of the base.
        words: `id`, and where they are given `title`, `question` and `compare_to`.
    """
    check = FormCheck()
    for name, look in (("id", check_new_id), ("compare_to", find_id)):
        try:
            if name == "id" or words.get(name, "").strip() not in ("", NO_BASELINE):
                look(words.get(name, "").strip())
        except UserError as error:
            check.reasons[name] = str(error)
    overrides = _parse(base, values, check.reasons)
    check.reasons |= _mistakes(base, overrides, check.reasons)
    if check.reasons:
        return check
    options = {name: words.get(name, "").strip() or None for name in WORDS[1:]}
    try:
        text = new_experiment(base, words["id"].strip(), overrides, **options)
        experiment = parse_experiment(parse_yaml(text), "new experiment")
        baseline = load_config(experiment.compare_to) if experiment.compare_to else experiment
        _check_corpus(experiment, check.reasons)
    except UserError as error:
        check.reasons[""] = str(error)
        return check
    check.compare_to = experiment.compare_to or ""
    check.changes = [
        (key, as_yaml(old), as_yaml(new))
        for key, (old, new) in diff_configs(baseline, experiment).items()
    ]
    check.cost = cost_line(experiment)
    # Without the id: the form proposes the next one as soon as an experiment is saved.
    named = f"{experiment.id}: "
    check.warnings = [line.removeprefix(named) for line in confounds(experiment, baseline)]
    check.warnings = [*memory_warnings(experiment), *check.warnings]
    check.text = "" if check.reasons else text
    return check


def check_html(check: FormCheck) -> str:
    """Return the differences, warnings and reasons of a check as HTML."""
    parts = []
    if check.reasons:
        named = ", ".join(key for key in check.reasons if key)
        reason = check.reasons.get("") or f"Not possible yet; see the reason beside {named}."
        parts.append(f"<p style='color:{tone_colour('bad')}'><b>{escape(reason)}</b></p>")
    elif check.changes:
        head = (f"differs from {check.compare_to} in", check.compare_to, "new")
        parts.append(html_table(head, check.changes, [LEFT] * 3, TABLE))
    elif check.compare_to:
        parts.append(f"<p>Nothing differs from {escape(check.compare_to)} yet.</p>")
    else:
        parts.append("<p>A baseline: it is compared with nothing.</p>")
    if check.cost:
        parts.append(f"<p>A run costs {escape(check.cost)}.</p>")
    return "".join([*parts, warnings_html(check.warnings)])


def _properties(schema: dict[str, Any], section: str) -> dict[str, Any]:
    reference = schema["properties"][section]
    name = (reference.get("$ref") or reference["allOf"][0]["$ref"]).rpartition("/")[2]
    return schema["$defs"][name]["properties"]


def _field(key: str, plain: dict[str, Any]) -> FormField:
    """Make a field of a key's JSON schema."""
    options = tuple(plain.get("enum", ()))
    if plain.get("type") == "boolean":
        options = ("false", "true")
    elif key == "data.corpus":
        options = tuple(corpus_names())
    branches = [_in_words(branch) for branch in plain.get("anyOf", [plain])]
    allowed = "one of these" if options else " or ".join(branches)
    return FormField(key, options, allowed, plain.get("description", "").replace("`", ""))


def _in_words(plain: dict[str, Any]) -> str:
    """Return the type and the bounds of a JSON schema in words."""
    if "const" in plain:
        return str(plain["const"])
    kind = TYPES.get(plain.get("type", ""), plain.get("type", "value"))
    bounds = [
        f"{word} {plain[name]:,}"
        for name, word in BOUNDS.items()
        if name in plain and plain[name] != LARGEST
    ]
    return " ".join([kind, " and ".join(bounds)]).strip()


def _parse(base: str, values: dict[str, str], reasons: dict[str, str]) -> dict[str, Any]:
    """Return the values that differ from the base's; one that is not YAML gets a reason."""
    known, overrides = base_values(base), {}
    for key, text in values.items():
        if text.strip() == known.get(key):
            continue
        try:
            overrides[key] = parse_yaml(text)
        except (yaml.YAMLError, ValueError):
            reasons[key] = f"{shorten(text)} is not a value; write a number, true, false or text"
    return overrides


def _mistakes(base: str, overrides: dict[str, Any], known: dict[str, str]) -> dict[str, str]:
    """Return key -> reason of each value that the schema refuses."""
    plain = load_config(base).to_dict()
    for key, value in overrides.items():
        section, _, name = key.partition(".")
        plain[section][name] = value
    try:
        Experiment.model_validate(plain)
    except ValidationError as error:
        reasons: dict[str, str] = {}
        for place, text in describe_errors(error).items():
            key = ".".join(map(str, place[:2]))
            if "." not in key:  # a rule that several keys of a section share
                key = _mentioned(key, text, overrides)
            reasons.setdefault(key, text.removeprefix(f"{place[0]}: "))
        return {key: text for key, text in reasons.items() if key not in known}
    return {}


def _mentioned(section: str, text: str, overrides: dict[str, Any]) -> str:
    """Return the key of a section that a message is about, a changed one first."""
    names = [f"{section}.{word}" for word in re.findall(r"\w+", text)]
    keys = [key for key in names if key in overrides]
    every = [key for key in names if key.partition(".")[2] in _section_keys(section)]
    return next(iter([*keys, *every]), "")


def _section_keys(section: str) -> set[str]:
    return set(Experiment.model_fields[section].annotation.model_fields)


def _check_corpus(experiment: Experiment, reasons: dict[str, str]) -> None:
    """Add the reason where a prepared corpus does not fit the model or the batch."""
    try:
        corpus = read_corpus(experiment.data.corpus, experiment.data.tokenizer, hashed=False)
    except UserError:
        return  # not prepared yet: the run prepares it
    try:
        check_fit(experiment, corpus)
    except UserError as error:
        keys = re.findall(r"(?:model|data|train)\.\w+", str(error))
        reasons[keys[0] if keys else ""] = str(error)
