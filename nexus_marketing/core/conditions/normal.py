"""Negation normal form: what both compilers read, so that they cannot disagree on the meaning.

NOT stands only directly above a leaf; only positive operators are left; case-insensitive leaves
have become exact leaves on the folded companion; plugin conditions that say themselves as a tree
have become that tree; a field stands on the left where one side has none.
"""

import unicodedata
from dataclasses import replace
from typing import Final

from nexus_marketing.core.conditions.check import check
from nexus_marketing.core.conditions.schema import Folding, Schema
from nexus_marketing.core.conditions.tree import (
    POSITIVE_FORMS,
    AllOf,
    AnyOf,
    Condition,
    Consented,
    Custom,
    EventCount,
    EventPick,
    FieldRef,
    InSegment,
    Leaf,
    Literal,
    Not,
    Operator,
    Scored,
    parts,
)
from nexus_marketing.core.values import email_norm, fold

_PLAIN: Final = {Operator.BEFORE: Operator.LESS, Operator.AFTER: Operator.GREATER}
_MIRRORED: Final = {
    Operator.EQUAL: Operator.EQUAL,
    Operator.LESS: Operator.GREATER,
    Operator.LESS_EQUAL: Operator.GREATER_EQUAL,
    Operator.GREATER: Operator.LESS,
    Operator.GREATER_EQUAL: Operator.LESS_EQUAL,
}
_WHOLE: Final = frozenset({Operator.EQUAL, Operator.IN})


def normalise(condition: Condition, schema: Schema) -> Condition:
    """The negation normal form of a condition, checked against the schema on the way."""
    return _normal(check(condition, schema), schema, negated=False)


def _normal(condition: Condition, schema: Schema, *, negated: bool) -> Condition:
    match condition:
        case Not():
            return _normal(condition.term, schema, negated=not negated)
        case AllOf() | AnyOf():
            terms = tuple(_normal(term, schema, negated=negated) for term in condition.terms)
            return AllOf(terms) if isinstance(condition, AllOf) is not negated else AnyOf(terms)
        case Custom():
            return _custom(condition, schema, negated=negated)
        case EventCount(operator=Operator.NOT_EQUAL) | Scored(operator=Operator.NOT_EQUAL):
            return _normal(replace(condition, operator=Operator.EQUAL), schema, negated=not negated)
        case EventCount() | EventPick() | InSegment() | Consented() | Scored():
            return Not(condition) if negated else condition
    positive = POSITIVE_FORMS.get(condition.operator)
    if positive is not None:
        condition, negated = replace(condition, operator=positive), not negated
    leaf = _mirrored(_folded(condition, schema))
    return Not(leaf) if negated else leaf


def _custom(condition: Custom, schema: Schema, *, negated: bool) -> Condition:
    operator = schema.operator(condition.name)
    if operator.to_tree is None:
        return Not(condition) if negated else condition
    return _normal(check(operator.to_tree(condition.arguments), schema), schema, negated=negated)


def _folded(leaf: Leaf, schema: Schema) -> Leaf:
    if not leaf.ignore_case or not isinstance(leaf.subject, FieldRef):
        return leaf
    field = schema.resolve(leaf.subject.name)
    operands = tuple(
        Literal(fold_literal(str(operand.value), field.folding, leaf.operator), operand.where)
        for operand in leaf.operands
        if isinstance(operand, Literal)
    )
    return Leaf(FieldRef(str(field.folded)), leaf.operator, operands, where=leaf.where)


def fold_literal(text: str, folding: Folding, operator: Operator) -> str:
    """Fold a literal as its companion was folded; a part of an address is not trimmed."""
    if folding is Folding.TEXT:
        return fold(text)
    return email_norm(text) if operator in _WHOLE else unicodedata.normalize("NFC", text.lower())


def _mirrored(leaf: Leaf) -> Leaf:
    leaf = replace(leaf, operator=_PLAIN.get(leaf.operator, leaf.operator))
    if leaf.operator not in _MIRRORED or any(isinstance(part, FieldRef) for part in parts(leaf.subject)):
        return leaf
    return replace(leaf, subject=leaf.operands[0], operator=_MIRRORED[leaf.operator], operands=(leaf.subject,))
