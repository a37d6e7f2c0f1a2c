"""Mutations of a Python file: cosmic-ray's operators and two of our own."""

from collections import defaultdict
from pathlib import Path

from cosmic_ray.ast import ast_nodes, get_ast
from cosmic_ray.mutating import mutate_code
from cosmic_ray.operators.operator import Operator
from cosmic_ray.plugins import get_operator, operator_names
from parso.python.tree import Name

Change = tuple[Operator, int]
"""An operator, and which of the places that it can change in a file."""
UNCHANGED = ("name", "newline", "string")
"""Types of nodes that no operator changes, most of a file."""


class DropCall:
    """Replace a call whose value is not used by `pass`."""

    def mutation_positions(self, node):
        if node.type in ("atom_expr", "power") and node.parent.type == "simple_stmt":
            yield node.start_pos, node.end_pos

    def mutate(self, node, index):
        return Name("pass", node.start_pos, node.get_first_leaf().prefix)


class DropKeyword:
    """Leave a keyword argument of a call out."""

    def mutation_positions(self, node):
        if node.type == "argument" and node.children[1] == "=":
            yield node.start_pos, node.end_pos

    def mutate(self, node, index):
        return Name("**{}", node.start_pos, node.get_first_leaf().prefix)


def in_annotation(node) -> bool:
    """Whether a node is part of a type annotation."""
    while node.parent:
        before = node.get_previous_sibling()
        if node.parent.type in ("tfpdef", "annassign") and before == ":":
            return True
        if node.parent.type == "funcdef" and before == "->":
            return True
        node = node.parent
    return False


def is_assertion(node) -> bool:
    """Whether a node is part of `strict=True`: it only asserts that sequences are equally long."""
    argument = node if node.type == "argument" else node.parent
    return argument.type == "argument" and argument.get_first_leaf().value == "strict"


def swaps_identity(name: str) -> bool:
    """Whether an operator swaps `is` and another comparison: the same, for None."""
    return len({word.startswith("Is") for word in name.split("_")[-2:]}) == 2


def mutations(path: Path) -> dict[tuple[int, int], list[Change]]:
    """Each place (line, column) of a file that can change -> operators, their occurrences."""
    names = [name for name in operator_names() if not get_operator(name).arguments()]
    names = [name for name in names if not swaps_identity(name)]
    operators = [DropCall(), DropKeyword(), *(get_operator(name)() for name in names)]
    places = defaultdict(list)
    count = dict.fromkeys(operators, 0)
    nodes = ast_nodes(get_ast(path.read_text()))
    for node in (node for node in nodes if node.type not in UNCHANGED):
        for operator in operators:
            for start, _ in operator.mutation_positions(node):
                if not in_annotation(node) and not is_assertion(node):
                    places[start].append((operator, count[operator]))
                count[operator] += 1
    return places


def mutate(source: str, operator: Operator, occurrence: int) -> str | None:
    """Return the changed source, or None where the change is no valid Python."""
    changed = mutate_code(source, operator, occurrence)
    try:
        compile(changed, "mutant", "exec")
    except SyntaxError:
        return None
    return changed
