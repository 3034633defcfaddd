"""The JSON spelling: ``{"conditions": [{"field", "operator", "value"}], "logic": "AND"}`` to a tree.

Every error carries the path inside the document, such as ``conditions.1.value``.
"""

import re
from collections.abc import Mapping, Sequence
from datetime import date
from typing import TYPE_CHECKING, Final

from nexus_marketing.core.conditions.limits import BOUNDS, check_bounds, check_literal, refuse
from nexus_marketing.core.conditions.text import (
    DEFAULT_CONSENT,
    consent_state,
    event_name,
    operator_word,
    parse_expression,
    scored,
    segment_named,
    whole_number,
    window_seconds,
)
from nexus_marketing.core.conditions.tree import (
    NULLARY,
    AllOf,
    AnyOf,
    Condition,
    Consented,
    Custom,
    EventCount,
    EventPick,
    Expression,
    FieldRef,
    InSegment,
    Leaf,
    Literal,
    LiteralValue,
    Not,
    Operator,
    Pick,
)
from nexus_marketing.core.errors import ConditionError, ValidationError
from nexus_marketing.core.values import UNIT_SECONDS, canonical_number, canonical_text, join, parse_date

if TYPE_CHECKING:
    from typing_extensions import TypeIs

_GROUP: Final = frozenset({"conditions", "logic"})
_LEAF: Final = frozenset({"field", "operator", "value", "ignore_case"})
_CUSTOM: Final = frozenset({"custom", "arguments"})
_COUNT: Final = frozenset({"count", "operator", "value", "where", "within", "between", "verdict"})
_PICK: Final = frozenset({"first", "last", "has", "verdict"})
_SEGMENT: Final = frozenset({"in_segment"})
_CONSENT: Final = frozenset({"consent", "type", "operator", "value"})
_SCORE: Final = frozenset({"score", "operator", "value"})
_DURATION: Final = re.compile(r"([0-9]{1,10})\s*(second|minute|hour|day|week)s?")
_OPERATORS: Final = {str(operator): operator for operator in Operator}
_LISTS: Final = frozenset({Operator.IN, Operator.NOT_IN, Operator.BETWEEN})


def parse_json_tree(document: object, path: str = "") -> Condition:
    """Parse the JSON spelling without looking at names and types.

    Raises:
        ConditionError: with the path inside the document and the remedy.
    """
    condition = _Reader(path).condition(document, "", 1)
    check_bounds(condition, path)
    return condition


class _Reader:
    """One pass over one document that lies at ``path``."""

    __slots__ = ("nodes", "path")

    def __init__(self, path: str) -> None:
        self.path = path
        self.nodes = 0

    def condition(self, document: object, where: str, depth: int) -> Condition:
        self.nodes += 1
        if depth > BOUNDS.depth:
            refuse(where, "too_deep", f"nested more than {BOUNDS.depth} deep; split the condition", self.path)
        if self.nodes > BOUNDS.nodes:
            refuse(where, "too_many_terms", f"more than {BOUNDS.nodes} terms; use in [...] or segments", self.path)
        if not isinstance(document, Mapping):
            refuse(
                where, "not_a_condition", 'write {"field", "operator", "value"} or {"conditions", "logic"}', self.path
            )
        if "conditions" in document:
            return self.group(document, where, depth)
        for key, read in (
            ("custom", self.custom),
            ("in_segment", self.segment),
            ("consent", self.consent),
            ("score", self.score),
        ):
            if key in document:
                return read(document, where)
        if "count" in document:
            return self.count(document, where, depth)
        if "first" in document or "last" in document:
            return self.pick(document, where, depth)
        return self.leaf(document, where)

    def count(self, document: Mapping[object, object], where: str, depth: int) -> Condition:
        self.known(document, _COUNT, where)
        event = self.event(document["count"], join(where, "count"))
        operator = self.operator(document.get("operator", ">="), join(where, "operator"))
        value = document.get("value", 1)
        if isinstance(value, bool) or not isinstance(value, int):
            refuse(join(where, "value"), "not_a_count", "a count is compared with a whole number", self.path)
        number = whole_number(str(value), join(where, "value"), self.path)
        test = self.condition(document["where"], join(where, "where"), depth + 1) if "where" in document else None
        span = self.span(document, where)
        return EventCount(
            event, operator, number, test, *span, any_verdict=self.any_verdict(document, where), where=where
        )

    def span(self, document: Mapping[object, object], where: str) -> tuple[int | None, date | None, date | None]:
        if "within" in document and "between" in document:
            refuse(where, "two_windows", "a count has one window: within or between", self.path)
        if "within" in document:
            place, said = join(where, "within"), document["within"]
            match = _DURATION.fullmatch(said) if isinstance(said, str) else None
            if match is None:
                refuse(place, "not_a_duration", 'within is a duration such as "30 days"', self.path)
            return window_seconds(int(match[1]) * UNIT_SECONDS[match[2]], place, self.path), None, None
        if "between" not in document:
            return None, None, None
        place, days = join(where, "between"), document["between"]
        if not _is_list(days) or len(days) != 2 or not all(isinstance(day, str) for day in days):
            refuse(place, "not_a_list", 'between is two days, such as ["2026-01-01", "2026-01-31"]', self.path)
        try:
            return None, parse_date(str(days[0])), parse_date(str(days[1]))
        except ValidationError as error:
            refuse(place, error.problems[0].code, error.problems[0].message, self.path)

    def pick(self, document: Mapping[object, object], where: str, depth: int) -> Condition:
        self.known(document, _PICK, where)
        if "first" in document and "last" in document:
            refuse(where, "two_picks", "either the first event or the last", self.path)
        pick = Pick.FIRST if "first" in document else Pick.LAST
        if "has" not in document:
            refuse(join(where, "has"), "required", "has says what the event must satisfy", self.path)
        test = self.condition(document["has"], join(where, "has"), depth + 1)
        event = self.event(document[str(pick)], join(where, pick))
        return EventPick(pick, event, test, self.any_verdict(document, where), where)

    def event(self, name: object, where: str) -> str:
        return event_name(name if isinstance(name, str) else "", where, self.path)

    def any_verdict(self, document: Mapping[object, object], where: str) -> bool:
        verdict = document.get("verdict", "human")
        if verdict not in ("human", "any"):
            refuse(join(where, "verdict"), "unknown_verdict", "verdict is human or any", self.path)
        return verdict == "any"

    def segment(self, document: Mapping[object, object], where: str) -> InSegment:
        self.known(document, _SEGMENT, where)
        place = join(where, "in_segment")
        return InSegment(segment_named(self.literal(document["in_segment"], place), place, self.path), where)

    def score(self, document: Mapping[object, object], where: str) -> Condition:
        self.known(document, _SCORE, where)
        operator = self.operator(document.get("operator", ">="), join(where, "operator"))
        name = document["score"]
        if not isinstance(name, str):
            refuse(join(where, "score"), "not_text", "a score's name is text", self.path)
        value = self.literal(document.get("value"), join(where, "value")).value
        return scored(name, operator, value, where, self.path)

    def consent(self, document: Mapping[object, object], where: str) -> Condition:
        self.known(document, _CONSENT, where)
        operator = self.operator(document.get("operator", "=="), join(where, "operator"))
        if operator not in {Operator.EQUAL, Operator.NOT_EQUAL}:
            refuse(join(where, "operator"), "no_order", "consent has no order; use == or !=", self.path)
        texts = {
            "consent": document["consent"],
            "type": document.get("type", DEFAULT_CONSENT),
            "value": document.get("value"),
        }
        for key, text in texts.items():
            if not isinstance(text, str) or not 0 < len(text) <= 64:
                refuse(join(where, key), "not_text", f"{key} is a text", self.path)
        state = consent_state(str(texts["value"]), join(where, "value"), self.path)
        found = Consented(str(texts["consent"]), state, str(texts["type"]), where)
        return found if operator is Operator.EQUAL else Not(found, where)

    def group(self, document: Mapping[object, object], where: str, depth: int) -> Condition:
        self.known(document, _GROUP, where)
        terms = document["conditions"]
        place = join(where, "conditions")
        if not _is_list(terms):
            refuse(place, "not_a_list", "conditions is a list", self.path)
        if not terms:
            refuse(place, "empty", "no conditions; a rule for everybody says so, for example id is_present", self.path)
        logic = document.get("logic", "AND")
        word = logic.upper() if isinstance(logic, str) else ""
        if word not in {"AND", "OR", "NOT"}:
            refuse(join(where, "logic"), "unknown_logic", f"logic is AND, OR or NOT, not {_shown(logic)}", self.path)
        parsed = tuple(self.condition(term, join(place, index), depth + 1) for index, term in enumerate(terms))
        if word == "NOT":
            if len(parsed) > 1:
                refuse(place, "not_takes_one", "NOT takes one condition; group several with AND or OR", self.path)
            return Not(parsed[0], where)
        if len(parsed) == 1:
            return parsed[0]
        return AllOf(parsed, where) if word == "AND" else AnyOf(parsed, where)

    def custom(self, document: Mapping[object, object], where: str) -> Custom:
        self.known(document, _CUSTOM, where)
        name, arguments = document["custom"], document.get("arguments", [])
        if not isinstance(name, str) or not 0 < len(name) <= 64:
            refuse(join(where, "custom"), "not_text", "custom is the name of a condition", self.path)
        if not _is_list(arguments):
            refuse(join(where, "arguments"), "not_a_list", "arguments is a list", self.path)
        self.short(arguments, join(where, "arguments"))
        values = (self.literal(v, join(join(where, "arguments"), i)) for i, v in enumerate(arguments))
        return Custom(name, tuple(values), where)

    def leaf(self, document: Mapping[object, object], where: str) -> Leaf:
        self.known(document, _LEAF, where)
        for key in ("field", "operator"):
            if key not in document:
                refuse(join(where, key), "required", f"{key} is required", self.path)
        operator = self.operator(document["operator"], join(where, "operator"))
        subject = self.subject(document["field"], join(where, "field"))
        ignore_case = document.get("ignore_case", False)
        if not isinstance(ignore_case, bool):
            refuse(join(where, "ignore_case"), "not_a_boolean", "ignore_case is true or false", self.path)
        if document.get("value") is None:
            return self.valueless(subject, operator, where, is_null="value" in document)
        operands = self.operands(operator, document["value"], join(where, "value"))
        return Leaf(subject, operator, operands, ignore_case, where)

    def valueless(self, subject: Expression, operator: Operator, where: str, *, is_null: bool) -> Leaf:
        if operator in NULLARY:
            return Leaf(subject, operator, where=where)
        meaning = {Operator.EQUAL: Operator.IS_MISSING, Operator.NOT_EQUAL: Operator.IS_PRESENT}.get(operator)
        if is_null and meaning is not None:
            return Leaf(subject, meaning, where=where)
        refuse(join(where, "value"), "required", f"{operator} needs a value; use is_missing to ask for none", self.path)

    def operands(self, operator: Operator, value: object, where: str) -> tuple[Expression, ...]:
        if operator in NULLARY:
            refuse(where, "unexpected", f"{operator} takes no value", self.path)
        if operator not in _LISTS:
            return (self.operand(value, where),)
        if not _is_list(value):
            refuse(where, "not_a_list", f"{operator} takes a list", self.path)
        self.short(value, where)
        if operator is Operator.BETWEEN:
            if len(value) != 2:
                refuse(where, "wrong_arity", "between takes a list of two: the low and the high end", self.path)
            return tuple(self.operand(item, join(where, index)) for index, item in enumerate(value))
        return tuple(self.literal(item, join(where, index)) for index, item in enumerate(value))

    def operand(self, value: object, where: str) -> Expression:
        if isinstance(value, Mapping):
            return self.expression(value, where)
        return self.literal(value, where)

    def literal(self, value: object, where: str) -> Literal:
        if isinstance(value, bool):
            return Literal(value, where)
        try:
            return Literal(self.scalar(value, where), where)
        except ConditionError:
            raise
        except ValidationError as error:
            refuse(where, error.problems[0].code, error.problems[0].message, self.path)

    def scalar(self, value: object, where: str) -> LiteralValue:
        if isinstance(value, str):
            check_literal(value, where, self.path)
            return canonical_text(value)
        if isinstance(value, (int, float)):
            return canonical_number(value)
        refuse(where, "not_a_value", f"{_shown(value)} is not a text, number or boolean", self.path)

    def subject(self, value: object, where: str) -> Expression:
        if isinstance(value, str) and value:
            check_literal(value, where, self.path)
            return FieldRef(value, where)
        if isinstance(value, Mapping):
            return self.expression(value, where)
        refuse(where, "not_text", "field is the name of a field", self.path)

    def expression(self, value: Mapping[object, object], where: str) -> Expression:
        text = value.get("expression")
        if not isinstance(text, str) or len(value) != 1:
            refuse(where, "not_a_value", 'an object here is {"expression": "now() - 30 days"}', self.path)
        return parse_expression(text, where, self.path)

    def operator(self, value: object, where: str) -> Operator:
        found = _OPERATORS.get(operator_word(value)) if isinstance(value, str) and len(value) < 32 else None
        if found is None:
            names = ", ".join(_OPERATORS)
            refuse(where, "unknown_operator", f"{_shown(value)} is not an operator; use one of {names}", self.path)
        return found

    def known(self, document: Mapping[object, object], keys: frozenset[str], where: str) -> None:
        for key in document:
            if key not in keys:
                message = f"unknown key {_shown(key)}; this object has {', '.join(sorted(keys))}"
                refuse(where, "unknown_key", message, self.path)

    def short(self, items: Sequence[object], where: str) -> None:
        if len(items) > BOUNDS.list_items:
            refuse(where, "list_too_long", f"a list of {len(items)}; the bound is {BOUNDS.list_items}", self.path)


def _is_list(value: object) -> "TypeIs[Sequence[object]]":
    return isinstance(value, (list, tuple))


def _shown(value: object) -> str:
    if isinstance(value, (str, bytes)):
        return ascii(value[:40])
    return str(value) if isinstance(value, (bool, float)) or value is None else f"a {type(value).__name__}"
