"""The form of a new experiment, as data: its fields from the schema, and what is wrong with values.

The same as `oelm new ID --from BASE --set KEY=VALUE ...`: config.new_experiment makes the file.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from html import escape
from typing import Any

from pydantic import ValidationError

from oelm_lib.config import (
    SECTIONS,
    Experiment,
    check_new_id,
    confound_warning,
    diff_configs,
    experiment_ids,
    find_id,
    flatten,
    load_config,
    new_experiment,
    parse_experiment,
    with_values,
)
from oelm_lib.config.fields import LARGEST
from oelm_lib.config.messages import describe_errors, shorten
from oelm_lib.config.new import NO_BASELINE
from oelm_lib.data.corpus import read_corpus
from oelm_lib.data.spec import corpus_names
from oelm_lib.errors import UserError
from oelm_lib.markup import html_table
from oelm_lib.runs.corpus_fit import check_fit
from oelm_lib.view.tones import toned
from oelm_lib.workbench.experiment import cost_line, memory_warnings
from oelm_lib.workbench.style import LEFT, TABLE, warnings_html
from oelm_lib.yaml_text import as_yaml, parse_yaml

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
"""Keys shown above the folded sections."""
BOUNDS = {
    "gt": "above",
    "ge": "at least",
    "minimum": "at least",
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


@dataclass(frozen=True)
class FormCheck:
    """The result of checking a form.

    Attributes:
        reasons: Key -> why its value is impossible; "" stands for the form as a whole. Where there
            is one, the other attributes are empty.
        changes: Key, value of the baseline, value of the new experiment.
        warnings: What weakens the comparison with the baseline, and a lack of memory.
        compare_to: The baseline; "" for none.
        cost: Parameters, memory and arithmetic of a run.
        text: The file.
    """

    reasons: dict[str, str] = field(default_factory=dict)
    changes: list[tuple[str, str, str]] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    compare_to: str = ""
    cost: str = ""
    text: str = ""


def form_fields() -> list[FormField]:
    """Return every key of the sections as a field, in the order of the schema."""
    sections = {name: Experiment.model_fields[name].annotation for name in SECTIONS}
    return [
        _field(f"{name}.{key}", properties)
        for name, section in sections.items()
        for key, properties in section.model_json_schema()["properties"].items()
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
    words = {name: text.strip() for name, text in words.items()}
    refusals = {
        "id": _refusal(check_new_id, words["id"]),
        "compare_to": _refusal(_check_baseline, words.get("compare_to", "")),
    }
    overrides, unreadable = _parse(base, values)
    reasons = {name: reason for name, reason in refusals.items() if reason}
    reasons |= _mistakes(base, overrides) | unreadable
    if reasons:
        return FormCheck(reasons)
    optional = {name: text for name, text in words.items() if name != "id"}
    try:
        text = new_experiment(base, words["id"], overrides, **optional)
        experiment = parse_experiment(parse_yaml(text), "new experiment")
        baseline = load_config(experiment.compare_to) if experiment.compare_to else experiment
    except UserError as error:
        return FormCheck({"": str(error)})
    if reasons := _corpus_mistakes(experiment):
        return FormCheck(reasons)
    confound = confound_warning(experiment, baseline)
    return FormCheck(
        changes=[
            (key, as_yaml(old), as_yaml(new))
            for key, (old, new) in diff_configs(baseline, experiment).items()
        ],
        warnings=[*memory_warnings(experiment), *([confound] if confound else [])],
        compare_to=experiment.compare_to or "",
        cost=cost_line(experiment),
        text=text,
    )


def check_html(check: FormCheck) -> str:
    """Return the differences, warnings and reasons of a check as HTML."""
    parts = []
    if check.reasons:
        named = ", ".join(key for key in check.reasons if key)
        reason = check.reasons.get("") or f"Not possible yet; see the reason beside {named}."
        parts.append(f"<p>{toned(reason, 'bad', 'b')}</p>")
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


def _field(key: str, plain: dict[str, Any]) -> FormField:
    """Make a field of a key's JSON schema."""
    options = tuple(plain.get("enum", ()))
    if plain.get("type") == "boolean":
        options = ("false", "true")
    elif key == "data.corpus":
        options = tuple(corpus_names())
    allowed = " or ".join(map(_in_words, plain.get("anyOf", [plain])))
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


def _refusal(check: Callable[..., object], *arguments: Any) -> str:
    """Return why a check refuses its arguments, or ""."""
    try:
        check(*arguments)
    except UserError as error:
        return str(error)
    return ""


def _check_baseline(text: str) -> None:
    """Raise UserError unless a text is an experiment's id, empty or NO_BASELINE."""
    if text not in ("", NO_BASELINE):
        find_id(text)


def _parse(base: str, values: dict[str, str]) -> tuple[dict[str, Any], dict[str, str]]:
    """Return the values that differ from the base's, and the reasons of those that are no YAML."""
    known, overrides, reasons = base_values(base), {}, {}
    for key, text in values.items():
        if text.strip() == known.get(key):
            continue
        try:
            overrides[key] = parse_yaml(text)
        except ValueError:
            reasons[key] = f"{shorten(text)} is not a value; write a number, true, false or text"
    return overrides, reasons


def _mistakes(base: str, overrides: dict[str, Any]) -> dict[str, str]:
    """Return key -> reason of each value that the schema refuses."""
    plain = with_values(load_config(base), overrides)
    reasons: dict[str, str] = {}
    try:
        Experiment.model_validate(plain)
    except ValidationError as error:
        for place, text in describe_errors(error).items():
            section, *names = map(str, place)
            if names:
                key = f"{section}.{names[0]}"
            else:  # a rule that several keys of a section share: the first changed one it names
                named = [word for word in re.findall(r"\w+", text) if word in plain[section]]
                keys = [f"{section}.{name}" for name in named]
                changed = [key for key in keys if key in overrides]
                key = [*changed, *keys, ""][0]
            reasons.setdefault(key, text.removeprefix(f"{section}: "))
    return reasons


def _corpus_mistakes(experiment: Experiment) -> dict[str, str]:
    """Return key -> reason where the prepared corpus does not fit the model or the batch."""
    try:
        corpus = read_corpus(experiment.data.corpus, experiment.data.tokenizer, hashed=False)
    except UserError:
        return {}  # not prepared yet: the run prepares it
    reason = _refusal(check_fit, experiment, corpus)
    keys = re.findall(r"(?:model|data|train)\.\w+", reason)
    return {keys[0] if keys else "": reason} if reason else {}
