"""Bounds on conditions and the errors that point at the place."""

from dataclasses import dataclass
from typing import Final, NoReturn

from nexus_marketing.core.conditions.tree import (
    FACTS,
    AllOf,
    AnyOf,
    Condition,
    Custom,
    Leaf,
    Literal,
    Not,
    Where,
    parts,
)
from nexus_marketing.core.errors import ConditionError, Problem
from nexus_marketing.core.values import join


@dataclass(frozen=True, slots=True)
class Bounds:
    """How large a condition may be, so that parsing, SQL and evaluation stay within milliseconds."""

    text_characters: int = 16_384
    depth: int = 16
    nodes: int = 256
    list_items: int = 1_000
    literals: int = 4_000
    literal_characters: int = 1_024
    arithmetic_operands: int = 6
    facts: int = 16


BOUNDS: Final = Bounds()


def check_bounds(condition: Condition, path: str = "", bounds: Bounds = BOUNDS) -> None:
    """Refuse a tree that is too deep, has too many nodes or too long lists. Needs no recursion."""
    waiting: list[tuple[Condition, int]] = [(condition, 1)]
    nodes = literals = facts = 0
    while waiting:
        node, depth = waiting.pop()
        nodes += 1
        if depth > bounds.depth:
            refuse(node.where, "too_deep", f"nested more than {bounds.depth} deep; split the condition", path)
        if nodes > bounds.nodes:
            refuse(node.where, "too_many_terms", f"more than {bounds.nodes} terms; use in [...] or segments", path)
        if isinstance(node, (AllOf, AnyOf)):
            waiting.extend((term, depth + 1) for term in reversed(node.terms))
        elif isinstance(node, Not):
            waiting.append((node.term, depth + 1))
        elif isinstance(node, FACTS):
            facts += 1
            if facts > bounds.facts:
                refuse(
                    node.where, "too_many_facts", f"more than {bounds.facts} questions about events and the like", path
                )
            test = getattr(node, "test", None)
            if test is not None:
                waiting.append((test, depth + 1))
        else:
            literals += _check_leaf(node, path, bounds)
            if literals > bounds.literals:
                refuse(node.where, "too_many_values", f"more than {bounds.literals} values in all", path)


def refuse(where: Where, code: str, message: str, path: str = "") -> NoReturn:
    """Raise a ConditionError that points at the character (text) or the path (JSON)."""
    raise ConditionError(problems=[problem(where, code, message, path)], position=position(where))


def problem(where: Where, code: str, message: str, path: str = "") -> Problem:
    """A problem of a condition that itself lies at ``path`` of a document."""
    if isinstance(where, int):
        return Problem(path, code, f"at character {where + 1}: {message}")
    return Problem(join(path, where) if where else path, code, message)


def position(where: Where) -> int | None:
    """The zero-based character offset, where the condition was text."""
    return where if isinstance(where, int) else None


def _check_leaf(leaf: Leaf | Custom, path: str, bounds: Bounds) -> int:
    operands = leaf.operands if isinstance(leaf, Leaf) else leaf.arguments
    if len(operands) > bounds.list_items:
        refuse(leaf.where, "list_too_long", f"a list of {len(operands)}; the bound is {bounds.list_items}", path)
    for operand in operands:
        if isinstance(operand, Literal) and isinstance(operand.value, str):
            check_literal(operand.value, operand.where, path, bounds)
    for expression in (leaf.subject, *operands) if isinstance(leaf, Leaf) else ():
        if len(parts(expression)) > bounds.arithmetic_operands:
            refuse(
                leaf.where, "too_many_operands", f"arithmetic on more than {bounds.arithmetic_operands} values", path
            )
    return len(operands)


def check_literal(text: str, where: Where, path: str = "", bounds: Bounds = BOUNDS) -> None:
    """Refuse a text constant that is too long."""
    if len(text) > bounds.literal_characters:
        message = f"a text of {len(text)} characters; the bound is {bounds.literal_characters}"
        refuse(where, "literal_too_long", message, path)
