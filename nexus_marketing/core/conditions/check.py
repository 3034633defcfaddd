"""Names and types: what is saved has been here, so that evaluation never meets a surprise.

Checking returns the tree with canonical names and with text turned into the dates that the
declared fields ask for. Checking a checked tree changes nothing.
"""

from dataclasses import replace
from datetime import UTC, datetime, time
from typing import Any, Final

from nexus_marketing.core.conditions import patterns
from nexus_marketing.core.conditions.limits import check_bounds, refuse
from nexus_marketing.core.conditions.schema import Argument, CustomOperator, Field, Schema
from nexus_marketing.core.conditions.text import CASELESS, parse_expression
from nexus_marketing.core.conditions.tree import (
    FACTS,
    NULLARY,
    ORDERINGS,
    POSITIVE_FORMS,
    AllOf,
    AnyOf,
    Arithmetic,
    Clock,
    ClockKind,
    Condition,
    Custom,
    EventCount,
    EventPick,
    Expression,
    Fact,
    FieldRef,
    FieldType,
    Leaf,
    Literal,
    Not,
    Operator,
    expressions,
    leaves,
    parts,
)
from nexus_marketing.core.errors import ConditionError, Problem, ValidationError
from nexus_marketing.core.values import parse_date, parse_datetime

_DATES: Final = frozenset({FieldType.DATE, FieldType.DATETIME})
_TEXTUAL: Final = frozenset({Operator.STARTS_WITH, Operator.ENDS_WITH, Operator.MATCHES})
_COUNTED: Final = frozenset(
    {
        Operator.EQUAL,
        Operator.NOT_EQUAL,
        Operator.LESS,
        Operator.LESS_EQUAL,
        Operator.GREATER,
        Operator.GREATER_EQUAL,
    }
)
_ORDERED: Final = frozenset({FieldType.NUMBER, FieldType.TEXT, FieldType.DATE, FieldType.DATETIME})


def check(condition: Condition, schema: Schema, path: str = "") -> Condition:
    """Resolve names, check types and convert dates; report every fault at once.

    Raises:
        ConditionError: with one problem per fault, each at its character or JSON path.
    """
    check_bounds(condition, path)
    problems: list[Problem] = []
    checked = _check(condition, schema, path, problems)
    if problems:
        raise ConditionError(problems=problems)
    return checked


def comparison_type(leaf: Leaf, schema: Schema) -> FieldType:
    """The one type in which a comparison happens: a literal's, else a declared field's, else number for arithmetic."""
    types = [_type(expression, schema) for expression in expressions(leaf)]
    for declared in types:
        if declared in _DATES and any(isinstance(e, FieldRef) for e in expressions(leaf)):
            return _dated(leaf, schema)
    for found in (*types[1:], types[0]):
        if found is not None and found is not FieldType.JSON:
            return found
    return FieldType.JSON


def _dated(leaf: Leaf, schema: Schema) -> FieldType:
    for expression in expressions(leaf):
        if isinstance(expression, FieldRef):
            kind = schema.resolve(expression.name, expression.where).type
            if kind in _DATES:
                return kind
    return FieldType.JSON


def _check(condition: Condition, schema: Schema, path: str, problems: list[Problem]) -> Condition:
    match condition:
        case AllOf() | AnyOf():
            return replace(condition, terms=tuple(_check(term, schema, path, problems) for term in condition.terms))
        case Not():
            return replace(condition, term=_check(condition.term, schema, path, problems))
    try:
        if isinstance(condition, FACTS):
            return _fact(condition, schema, path)
        return _leaf(condition, schema, path) if isinstance(condition, Leaf) else _custom(condition, schema, path)
    except ConditionError as error:
        problems.extend(error.problems)
        return condition


def _fact(fact: Fact, schema: Schema, path: str) -> Fact:
    if schema.events is None:
        message = "count(), first(), last(), in_segment(), consent() and score() are for the conditions of segments"
        refuse(fact.where, "no_facts_here", message, path)
    if isinstance(fact, EventCount):
        if fact.operator not in _COUNTED:
            refuse(fact.where, "not_a_count", f"a count is compared with {', '.join(sorted(_COUNTED))}", path)
        if fact.since is not None and fact.until is not None and fact.since > fact.until:
            refuse(fact.where, "empty_range", "between has its bounds the wrong way round; swap them", path)
    if isinstance(fact, (EventCount, EventPick)) and fact.test is not None:
        test = check(fact.test, schema.events, path)
        for leaf in leaves(test):
            if isinstance(leaf, Leaf) and any(isinstance(each, Clock) for each in expressions(leaf)):
                refuse(
                    leaf.where, "clock_in_event", "say within 30 days behind count(…) instead of the clock in it", path
                )
        return replace(fact, test=test)
    return fact


def _custom(condition: Custom, schema: Schema, path: str) -> Custom:
    operator = schema.operator(condition.name, condition.where, path)
    if operator.takes is not None:
        condition = replace(condition, arguments=_told(condition, operator, path))
    if operator.to_tree is not None:
        check(operator.to_tree(condition.arguments), schema, path)
    return condition


def _told(condition: Custom, operator: CustomOperator, path: str) -> tuple[Literal, ...]:
    """What stands in the parentheses, of the types that the plugin wants."""
    takes, given = operator.takes or (), condition.arguments
    least = sum(each.is_required for each in takes)
    if not least <= len(given) <= len(takes):
        shown = ", ".join(f"{each.name}: {each.type}{'' if each.is_required else ' or nothing'}" for each in takes)
        said = f"{operator.name}() takes {shown or 'nothing'}: {len(given)} given"
        refuse(condition.where, "wrong_arguments", said, path)
    return tuple(_told_one(told, each, condition, path) for told, each in zip(given, takes, strict=False))


def _told_one(told: Literal, wanted: Argument, condition: Custom, path: str) -> Literal:
    is_dated = wanted.type in _DATES
    found = _date_literal(told, Field(wanted.name, wanted.type), path) if is_dated else told
    if not isinstance(found, Literal) or found.type is not wanted.type:
        said = f"{wanted.name} of {condition.name}() is a {wanted.type}"
        refuse(told.where or condition.where, "wrong_type", said, path)
    return found


def _leaf(leaf: Leaf, schema: Schema, path: str) -> Leaf:
    named = _resolve_names(leaf, schema, path)
    fields = [part for e in expressions(named) for part in parts(e) if isinstance(part, FieldRef)]
    if not fields:
        refuse(leaf.where, "no_field", "compares no field; name one", path)
    _check_case(named, schema, path)
    operator = POSITIVE_FORMS.get(named.operator, named.operator)
    if operator in NULLARY:
        _simple_subject(named, path)
        return named
    if operator is Operator.IN:
        return _check_members(named, schema, path)
    if operator is Operator.CONTAINS:
        return _check_contains(named, schema, path)
    if operator in _TEXTUAL:
        return _check_textual(named, schema, path)
    return _check_comparison(named, schema, path)


def _resolve_names(leaf: Leaf, schema: Schema, path: str) -> Leaf:
    subject = _resolved(leaf.subject, schema, path)
    return replace(leaf, subject=subject, operands=tuple(_resolved(e, schema, path) for e in leaf.operands))


def _resolved(expression: Expression, schema: Schema, path: str) -> Expression:
    if isinstance(expression, FieldRef):
        return replace(expression, name=schema.resolve(expression.name, expression.where, path).name)
    if not isinstance(expression, Arithmetic):
        return expression
    left, right = (_resolved(expression.left, schema, path), _resolved(expression.right, schema, path))
    for side in (left, right):
        if _type(side, schema) not in {FieldType.NUMBER, FieldType.JSON}:
            refuse(expression.where, "not_a_number", "arithmetic takes numbers", path)
    return replace(expression, left=left, right=right)


def _check_case(leaf: Leaf, schema: Schema, path: str) -> None:
    if not leaf.ignore_case:
        return
    field = _subject_field(leaf, schema, path)
    if leaf.operator not in CASELESS:
        refuse(leaf.where, "case_not_ignorable", f"{leaf.operator} cannot ignore case", path)
    if field.folded is None:
        known = ", ".join(sorted(name for name, entry in schema.fields.items() if entry.folded)) or "no field"
        message = f"{field.name} has no case-insensitive companion ({known} has); store one or compare exactly"
        refuse(leaf.where, "no_companion", message, path)
    for operand in leaf.operands:
        if not isinstance(operand, Literal) or operand.type is not FieldType.TEXT:
            refuse(leaf.where, "not_text", "only text has case", path)


def _check_members(leaf: Leaf, schema: Schema, path: str) -> Leaf:
    field = _subject_field(leaf, schema, path)
    if not leaf.operands:
        refuse(leaf.where, "empty_list", f"{leaf.operator} needs at least one value", path)
    if field.type is FieldType.LIST:
        refuse(leaf.where, "is_a_list", f"{field.name} is a list; write {field.name} contains 'x'", path)
    operands = tuple(_converted(operand, field, leaf, path) for operand in leaf.operands)
    if not all(isinstance(operand, Literal) for operand in operands):
        refuse(leaf.where, "not_a_value", f"{leaf.operator} takes constants", path)
    return replace(leaf, operands=operands)


def _check_contains(leaf: Leaf, schema: Schema, path: str) -> Leaf:
    field = _subject_field(leaf, schema, path)
    operand = _one_literal(leaf, path)
    if field.type not in {FieldType.TEXT, FieldType.LIST, FieldType.JSON}:
        refuse(leaf.where, "wrong_type", f"{field.name} is a {field.type}; contains asks text or a list", path)
    if operand.type in _DATES:
        refuse(operand.where, "wrong_type", "lists keep dates as text; quote the date", path)
    if field.type is FieldType.TEXT and operand.type is not FieldType.TEXT:
        refuse(operand.where, "wrong_type", f"{field.name} is text; quote what it should contain", path)
    return leaf


def _check_textual(leaf: Leaf, schema: Schema, path: str) -> Leaf:
    field = _subject_field(leaf, schema, path)
    operand = _one_literal(leaf, path)
    if field.type not in {FieldType.TEXT, FieldType.JSON}:
        refuse(leaf.where, "wrong_type", f"{field.name} is a {field.type}; {leaf.operator} asks text", path)
    if operand.type is not FieldType.TEXT:
        refuse(operand.where, "wrong_type", f"{leaf.operator} takes a text; quote it", path)
    if leaf.operator is Operator.MATCHES:
        try:
            patterns.parse(str(operand.value))
        except patterns.PatternError as error:
            where = operand.where + 1 + error.position if isinstance(operand.where, int) else operand.where
            refuse(where, "pattern_refused", str(error), path)
    return leaf


def _check_comparison(leaf: Leaf, schema: Schema, path: str) -> Leaf:
    wanted = 2 if leaf.operator is Operator.BETWEEN else 1
    if len(leaf.operands) != wanted:
        refuse(leaf.where, "wrong_arity", f"{leaf.operator} takes {wanted} value(s), not {len(leaf.operands)}", path)
    for expression in expressions(leaf):
        if isinstance(expression, FieldRef) and _type(expression, schema) is FieldType.LIST:
            refuse(leaf.where, "is_a_list", f"{expression.name} is a list; use contains", path)
    kind = comparison_type(leaf, schema)
    dated = any(isinstance(e, Clock) or _type(e, schema) in _DATES for e in expressions(leaf))
    if dated and _dated(leaf, schema) is FieldType.JSON:
        refuse(leaf.where, "not_a_date_field", "a date is compared with a field declared as date or datetime", path)
    if kind is FieldType.JSON:
        refuse(leaf.where, "undeclared", "compares two undeclared fields; declare the type of one", path)
    if kind in _DATES:
        leaf = _dated_leaf(leaf, schema, path)
    for expression in expressions(leaf):
        _fits(expression, kind, leaf, schema, path)
    _check_operator(leaf, kind, path)
    return leaf


def _check_operator(leaf: Leaf, kind: FieldType, path: str) -> None:
    if leaf.operator in {Operator.BEFORE, Operator.AFTER} and kind not in _DATES:
        message = f"{leaf.operator} needs a field declared as date or datetime; use < and > for others"
        refuse(leaf.where, "not_a_date_field", message, path)
    if leaf.operator in ORDERINGS and kind not in _ORDERED:
        refuse(leaf.where, "no_order", f"a {kind} has no order; use == or !=", path)
    if leaf.operator is not Operator.BETWEEN:
        return
    if kind not in _DATES | {FieldType.NUMBER}:
        refuse(leaf.where, "no_range", "between takes two numbers, or dates on a declared date field", path)
    low, high = leaf.operands
    if isinstance(low, Literal) and isinstance(high, Literal) and low.type is high.type and _is_above(low, high):
        refuse(leaf.where, "empty_range", "between has its bounds the wrong way round; swap them", path)


def _is_above(low: Literal, high: Literal) -> bool:
    first: Any = low.value
    return bool(first > high.value)


def _dated_leaf(leaf: Leaf, schema: Schema, path: str) -> Leaf:
    kind = comparison_type(leaf, schema)
    field = next(
        schema.resolve(e.name)
        for e in expressions(leaf)
        if isinstance(e, FieldRef) and schema.resolve(e.name).type is kind
    )
    subject, *operands = (_converted(e, field, leaf, path) for e in expressions(leaf))
    return replace(leaf, subject=subject, operands=tuple(operands))


def _converted(operand: Expression, field: Field, leaf: Leaf, path: str) -> Expression:
    """The operand as the declared date field asks for it; others stay and must fit."""
    if isinstance(operand, Literal) and field.type in _DATES:
        return _date_literal(operand, field, path)
    if isinstance(operand, Literal) and field.type is not FieldType.JSON and operand.type is not field.type:
        message = f"{field.name} is a {field.type}, {operand.value!a} is a {operand.type}; it could never match"
        refuse(operand.where or leaf.where, "wrong_type", message, path)
    if isinstance(operand, Literal) and field.type is FieldType.JSON and operand.type in _DATES:
        refuse(operand.where or leaf.where, "not_a_date_field", f"declare {field.name} as date or datetime", path)
    return operand


def _date_literal(operand: Literal, field: Field, path: str) -> Expression:
    value = operand.value
    try:
        if isinstance(value, str):
            if "(" in value:
                return parse_expression(value, operand.where, path)
            is_date = field.type is FieldType.DATE or len(value) == len("2026-03-29")
            value = parse_date(value) if is_date else parse_datetime(value)
    except ValidationError as error:
        refuse(operand.where, "not_a_date", error.problems[0].message, path)
    if isinstance(value, datetime) and field.type is FieldType.DATE:
        refuse(operand.where, "not_a_date", f"{field.name} is a date without a time; leave the time out", path)
    if isinstance(value, (bool, int, float, str)):
        refuse(operand.where, "wrong_type", f"{field.name} is a {field.type}; write YYYY-MM-DD", path)
    if field.type is FieldType.DATETIME and not isinstance(value, datetime):
        value = datetime.combine(value, time(), UTC)
    return Literal(value, operand.where)


def _fits(expression: Expression, kind: FieldType, leaf: Leaf, schema: Schema, path: str) -> None:
    where = getattr(expression, "where", "") or leaf.where
    if isinstance(expression, Clock):
        if kind not in _DATES:
            refuse(where, "not_a_date_field", f"{expression.kind}() needs a field declared as date or datetime", path)
        if expression.kind is ClockKind.LOCAL_TODAY and kind is FieldType.DATETIME:
            refuse(where, "wrong_type", "local_today() is a date; compare a date field, or use today()", path)
        return
    found = _type(expression, schema)
    if found is kind or (isinstance(expression, FieldRef) and found is FieldType.JSON and kind not in _DATES):
        return
    if found in _DATES:
        refuse(where, "not_a_date_field", "the field must be declared as date or datetime", path)
    shown = expression.name if isinstance(expression, FieldRef) else "the value"
    refuse(where, "wrong_type", f"{shown} is a {found}, compared with a {kind}; it could never match", path)


def _type(expression: Expression, schema: Schema) -> FieldType | None:
    match expression:
        case Literal():
            return expression.type
        case FieldRef():
            return schema.resolve(expression.name, expression.where).type
        case Arithmetic():
            return FieldType.NUMBER
    return None


def _simple_subject(leaf: Leaf, path: str) -> FieldRef:
    if not isinstance(leaf.subject, FieldRef):
        refuse(leaf.where, "not_a_field", f"{leaf.operator} takes a field on its left", path)
    return leaf.subject


def _subject_field(leaf: Leaf, schema: Schema, path: str) -> Field:
    return schema.resolve(_simple_subject(leaf, path).name, leaf.where, path)


def _one_literal(leaf: Leaf, path: str) -> Literal:
    if len(leaf.operands) != 1 or not isinstance(leaf.operands[0], Literal):
        refuse(leaf.where, "not_a_value", f"{leaf.operator} takes one constant on its right", path)
    return leaf.operands[0]
