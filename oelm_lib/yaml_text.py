"""YAML as the workbook reads and writes it: YAML 1.1 without its surprises.

Numbers are decimal (no octals or sexagesimals), `1e-3` is a number, only `true` and
`false` are booleans, dates are text. A key given twice and nesting beyond DEPTH are errors.
"""

import re
from typing import Any, ClassVar

import yaml

from oelm_lib.files import DEPTH

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


class _Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):
    yaml_implicit_resolvers: ClassVar[dict] = {}


class _FileDumper(yaml.SafeDumper):
    """Quotes also text that other readers of YAML would not take for text."""

    def ignore_aliases(self, data):
        return True


class _LineDumper(_FileDumper):
    yaml_implicit_resolvers: ClassVar[dict] = {}


for _tag, _pattern in SCALARS.items():
    for _class in (_Loader, _FileDumper, _LineDumper):
        _regex = re.compile(rf"(?:{_pattern})\Z", re.IGNORECASE)
        _class.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", _regex, None)


def parse_yaml(text: str) -> Any:
    """Return the value of a YAML text.

    Raises:
        ValueError: It is not YAML, gives a key twice, or is nested more than DEPTH deep.
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
    except (yaml.YAMLError, RecursionError) as error:
        raise ValueError(str(error)) from None


def _check_depth(text: str) -> None:
    """Bound the nesting: the composer is recursive and overruns the stack; its parser is not."""
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


def dump_yaml(value: Any, *, one_line: bool = False) -> str:
    """Return YAML that parse_yaml reads back to the same value, keys in their order."""
    if not one_line:
        return yaml.dump(value, Dumper=_FileDumper, sort_keys=False, allow_unicode=True)
    options = {"default_flow_style": True, "width": 10**6}
    text = yaml.dump(value, Dumper=_LineDumper, sort_keys=False, allow_unicode=True, **options)
    return text.removesuffix("\n...\n").strip()
