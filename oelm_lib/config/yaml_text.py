"""YAML as the workbook reads and writes it: YAML 1.1 without its surprises.

Numbers are decimal (no octals or sexagesimals), `1e-3` is a number, only `true` and
`false` are booleans, dates are text. A key given twice and nesting beyond DEPTH are errors.
"""

import re
from pathlib import Path
from typing import Any, ClassVar

import yaml

from oelm_lib.config.messages import GUIDE
from oelm_lib.config.paths import relative_path
from oelm_lib.errors import UserError

DEPTH = 32
"""Deepest nesting that is read; the composer of PyYAML is recursive."""
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


class _Loader(yaml.SafeLoader):
    yaml_implicit_resolvers: ClassVar[dict] = {}
    depth = 0

    def compose_node(self, parent, index):
        self.depth += 1
        if self.depth > DEPTH:
            raise yaml.YAMLError(f"it is nested more than {DEPTH} deep")
        try:
            return super().compose_node(parent, index)
        finally:
            self.depth -= 1

    def compose_mapping_node(self, anchor):
        node = super().compose_mapping_node(anchor)
        keys = set()
        for key, _ in node.value:
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
        return node


class _Dumper(yaml.SafeDumper):
    yaml_implicit_resolvers: ClassVar[dict] = {}

    def ignore_aliases(self, data):
        return True


for _tag, _pattern in SCALARS.items():
    for _class in (_Loader, _Dumper):
        _regex = re.compile(rf"(?:{_pattern})\Z", re.IGNORECASE)
        _class.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", _regex, None)


def parse_yaml(text: str) -> Any:
    """Return the value of a YAML text. Raises yaml.YAMLError or ValueError."""
    return yaml.load(text, _Loader)


def dump_yaml(value: Any, *, one_line: bool = False) -> str:
    """Return YAML that parse_yaml reads back to the same value, keys in their order."""
    options = {"default_flow_style": True, "width": 10**6} if one_line else {}
    text = yaml.dump(value, Dumper=_Dumper, sort_keys=False, allow_unicode=True, **options)
    return text.removesuffix("\n...\n").strip() if one_line else text


def read_yaml(path: Path, guide: str = GUIDE) -> dict[str, Any]:
    """Read a YAML mapping; `guide` is a file that shows every key.

    Raises:
        UserError: The file cannot be read, or the place of a mistake.
    """
    where = relative_path(path)
    try:
        plain = parse_yaml(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, ValueError) as error:
        raise UserError(f"{where}: not valid YAML: {error}; correct the file") from None
    except OSError as error:
        raise UserError(
            f"{where}: cannot be read: {error.strerror}; check the name and its permissions"
        ) from None
    if not isinstance(plain, dict):
        raise UserError(
            f"{where}: holds {type(plain).__name__}, not a mapping of keys; see {guide}"
        )
    return plain
