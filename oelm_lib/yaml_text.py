"""YAML as the workbook reads and writes it: YAML 1.1 without its surprises.

Numbers are decimal (no octals or sexagesimals), `1e-3` is a number, only `true` and
`false` are booleans, dates are text. A key given twice and nesting beyond DEPTH are errors.
"""

import re
from typing import Any, ClassVar

import yaml

DEPTH = 100
"""Deepest nesting that is read; the composer is recursive."""
# An exponent needs a sign: a commit hash such as 12345e67 is text.
SCALARS = {
    "null": r"~|null|",
    "bool": r"true|false",
    "int": r"[-+]?(0|[1-9][0-9_]*)",
    "merge": r"<<",
    "float": (
        r"[-+]?([0-9]*\.[0-9]+|[0-9]+\.)(e[-+]?[0-9]+)?|[-+]?[0-9]+e[-+][0-9]+"
        r"|[-+]?\.inf|\.nan"
    ),
}


TAB = "a tab; indent with spaces"
EXPECTED = re.compile("(?:could|did) not find expected ([^a-z].*)")
"""Of these problems, libyaml's context mark is where the mistake is, not its problem mark."""
LIBYAML_WORDS = {
    "mapping values are not allowed in this context": (
        "a ':' is not allowed here; quote the text, or correct the indentation or the line above"
    ),
    "did not find expected key": "wrong indentation",
    "did not find expected node content": "a value or a closing bracket is missing",
    "found a tab character that violates indentation": TAB,
    "but found another document": "a second document; remove this line",
    "found character that cannot start any token": "no value starts with this; quote the text",
}
"""Problem in libyaml's words -> in the user's."""


class _Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):
    yaml_implicit_resolvers: ClassVar[dict] = {}


class _FileDumper(yaml.SafeDumper):
    """Quotes also text that other readers of YAML would not take for text."""

    def ignore_aliases(self, data):
        return True


def _represent_text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    """Quote text with a line break of Unicode, which PyYAML would fold, so that it is escaped."""
    style = '"' if any(character in text for character in "\x85\u2028\u2029") else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_FileDumper.add_representer(str, _represent_text)


class _LineDumper(_FileDumper):
    yaml_implicit_resolvers: ClassVar[dict] = {}


for _tag, _pattern in SCALARS.items():
    for _class in (_Loader, _FileDumper, _LineDumper):
        _regex = re.compile(rf"(?:{_pattern})\Z", re.IGNORECASE)
        _class.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", _regex, None)


def parse_yaml(text: str) -> Any:
    """Return the value of a YAML text.

    Raises:
        ValueError: It is not YAML, has a tag that does not fit its value, gives a key twice, or is
            nested more than DEPTH deep; one line.
    """
    try:
        _check_depth(text)
        loader = _Loader(text)
        try:
            node = loader.get_single_node()
            if node is None:
                return None
            _check_keys(node)
            return loader.construct_document(node)
        finally:
            loader.dispose()
    except yaml.MarkedYAMLError as error:
        raise ValueError(_one_line(error, text)) from None
    except (LookupError, AttributeError):  # PyYAML's, where a tag does not fit: !!bool x
        raise ValueError("a tag such as !!bool does not fit its value; remove the tag") from None
    except (yaml.YAMLError, RecursionError) as error:
        raise ValueError(str(error).partition("\n")[0]) from None


def _one_line(error: yaml.MarkedYAMLError, text: str) -> str:
    """Return the line of a mistake and what is wrong with it."""
    problem, mark = error.problem or error.context, error.problem_mark
    if expected := EXPECTED.fullmatch(problem):
        problem = f"a {expected.group(1)} is missing"
        mark = error.context_mark or mark
    elif problem == "found unexpected end of stream":
        problem, mark = "its quotation mark is not closed", error.context_mark
    lines = text.splitlines()
    number = min(mark.line, len(lines) - 1)  # the end of the text may be a line of its own
    line = lines[number]
    if line[mark.column : mark.column + 1] == "\t":
        problem = TAB
    return f"line {number + 1}: `{line.strip()[:60]}`: {LIBYAML_WORDS.get(problem, problem)}"


def _check_depth(text: str) -> None:
    """Limit the nesting, counted by the parser: the composer is recursive and would overflow."""
    depth = 0
    for event in yaml.parse(text, Loader=_Loader):
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1
        if depth > DEPTH:
            raise ValueError(f"it is nested more than {DEPTH} deep")


def _check_keys(root: yaml.Node) -> None:
    """Refuse a key that is not a scalar or is given twice."""
    nodes, seen = [root], set()
    while nodes:
        node = nodes.pop()
        if id(node) in seen or isinstance(node, yaml.ScalarNode):
            continue
        seen.add(id(node))
        if isinstance(node, yaml.SequenceNode):
            nodes += node.value
            continue
        keys = set()
        for key, value in node.value:
            if not isinstance(key, yaml.ScalarNode):
                raise yaml.MarkedYAMLError(
                    problem="a key is not plain text", problem_mark=key.start_mark
                )
            if key.value in keys:
                raise yaml.MarkedYAMLError(
                    problem=f"the key {key.value} is given twice; keep one",
                    problem_mark=key.start_mark,
                )
            keys.add(key.value)
            nodes.append(value)


def dump_yaml(value: Any) -> str:
    """Return YAML that parse_yaml reads back to the same value, keys in their order."""
    return yaml.dump(value, Dumper=_FileDumper, sort_keys=False, allow_unicode=True)


def as_yaml(value: Any) -> str:
    """Return a value on one line, as it stands after its key in a file."""
    options = {"default_flow_style": True, "width": 10**6}
    text = yaml.dump(value, Dumper=_LineDumper, sort_keys=False, allow_unicode=True, **options)
    return text.removesuffix("\n...\n").strip("\n")  # other white space belongs to the value
