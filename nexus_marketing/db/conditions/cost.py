"""How much a condition costs a database, told before it is saved."""

from enum import StrEnum
from typing import Final

from nexus_marketing.core.conditions import (
    AllOf,
    AnyOf,
    Condition,
    Consented,
    Custom,
    EventCount,
    EventPick,
    FieldRef,
    FieldType,
    InSegment,
    Leaf,
    Not,
    Operator,
    Schema,
    Scored,
)
from nexus_marketing.core.conditions.normal import normalise
from nexus_marketing.core.conditions.tree import Literal, expressions, parts

_INDEXABLE: Final = frozenset(
    {
        Operator.EQUAL,
        Operator.IN,
        Operator.LESS,
        Operator.LESS_EQUAL,
        Operator.GREATER,
        Operator.GREATER_EQUAL,
        Operator.BETWEEN,
        Operator.STARTS_WITH,
    }
)
_SEARCHING: Final = frozenset({Operator.CONTAINS, Operator.ENDS_WITH, Operator.MATCHES})


class CostClass(StrEnum):
    """``indexed`` reads what it answers; ``cheap`` reads typed columns of every lead; ``scan`` reads into
    text, JSON or plugins of every lead.
    """

    INDEXED = "indexed"
    CHEAP = "cheap"
    SCAN = "scan"


_ORDER: Final = (CostClass.INDEXED, CostClass.CHEAP, CostClass.SCAN)


def cost_class(condition: Condition, schema: Schema) -> CostClass:
    """The cost class of a condition: a conjunction costs its best index, else its worst term."""
    return _cost(normalise(condition, schema), schema)


def _cost(condition: Condition, schema: Schema) -> CostClass:
    match condition:
        case AllOf() | AnyOf():
            costs = [_cost(term, schema) for term in condition.terms]
            if isinstance(condition, AllOf) and CostClass.INDEXED in costs:
                return CostClass.INDEXED
            return max(costs, key=_ORDER.index)
        case Not():
            inner = _cost(condition.term, schema)
            return CostClass.CHEAP if inner is CostClass.INDEXED else inner
        case Custom() | EventPick():
            return CostClass.SCAN
        case EventCount():
            return CostClass.CHEAP if condition.test is None else CostClass.SCAN
        case InSegment() | Consented() | Scored():
            return CostClass.CHEAP
    return _leaf_cost(condition, schema)


def _leaf_cost(leaf: Leaf, schema: Schema) -> CostClass:
    names = [part.name for e in expressions(leaf) for part in parts(e) if isinstance(part, FieldRef)]
    fields = [schema.resolve(name) for name in names]
    if isinstance(leaf.subject, FieldRef) and fields[0].indexed and leaf.operator in _INDEXABLE and len(fields) == 1:
        return CostClass.INDEXED
    backwards = schema.fields.get(fields[0].reversed or "")
    if leaf.operator is Operator.ENDS_WITH and backwards is not None:
        return CostClass.INDEXED if backwards.indexed else CostClass.CHEAP
    is_search = leaf.operator in _SEARCHING and bool(leaf.operands) and isinstance(leaf.operands[0], Literal)
    in_json = any(not field.is_column or field.type in {FieldType.JSON, FieldType.LIST} for field in fields)
    return CostClass.SCAN if is_search or in_json else CostClass.CHEAP
