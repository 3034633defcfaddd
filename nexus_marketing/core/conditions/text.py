"""The text spelling: ``age > 25 AND location == 'US'`` to a tree.

The parser is LALR and builds the tree bottom-up, so nesting costs no recursion; bounds are
checked before and after. Every error names the character and what could stand there.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING, Any, Final, NoReturn

from nexus_marketing.core.conditions.limits import BOUNDS, check_bounds, check_literal, refuse
from nexus_marketing.core.conditions.tree import (
    AllOf,
    AnyOf,
    Arithmetic,
    Clock,
    ClockKind,
    Condition,
    Consented,
    ConsentIs,
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
    Scored,
    Where,
)
from nexus_marketing.core.errors import ConditionError, ValidationError
from nexus_marketing.core.values import UNIT_SECONDS, canonical_number, canonical_text, parse_date, parse_datetime

if TYPE_CHECKING:
    from lark import Lark

#: As events are recorded (``core.engagements``).
EVENT_NAME: Final = re.compile(r"[a-z][a-z0-9_.]{0,63}")
MAX_COUNT_DIGITS: Final = 6
#: The score that is a field of the lead.
OWN_SCORE: Final = "score"
MAX_SCORE_NAME: Final = 64
#: What compares numbers.
ORDERED: Final = frozenset(
    {
        Operator.EQUAL,
        Operator.NOT_EQUAL,
        Operator.LESS,
        Operator.LESS_EQUAL,
        Operator.GREATER,
        Operator.GREATER_EQUAL,
    }
)
#: What consent is for where nothing is said.
DEFAULT_CONSENT: Final = "marketing"
MAX_OFFSET_SECONDS: Final = 100 * 366 * 86_400
_SYNONYMS: Final = {"=": "==", "<>": "!=", "is_null": "is_missing", "is_not_null": "is_present"}
_OPPOSITES: Final = {"is_not_missing": "is_present", "is_not_present": "is_missing"}
CASELESS: Final = frozenset({"==", "!=", "in", "not_in", "contains", "not_contains", "starts_with", "ends_with"})
_EXPECTED: Final = {
    "NAME": "a field name",
    "COMPARE": "a comparison such as == or >",
    "MEMBERSHIP": "in or not in",
    "TEXT_OPERATOR": "contains, starts_with, ends_with or matches",
    "NUMBER": "a number",
    "STRING": "a 'text'",
    "LSQB": "[",
    "COMMA": "a comma",
    "_AND": "AND",
    "_OR": "OR",
    "NOT": "NOT",
    "LPAR": "(",
    "RPAR": ")",
    "RSQB": "]",
    "$END": "the end",
}


@dataclass(frozen=True, slots=True)
class _Duration:
    """``30 days``: only meaningful beside ``now()`` and ``today()``."""

    seconds: int
    where: Where


def parse_text_tree(text: str, path: str = "") -> Condition:
    """Parse the text spelling without looking at names and types.

    Raises:
        ConditionError: with the character position and the remedy.
    """
    condition: Condition = _run(text, "start", path)
    check_bounds(condition, path)
    return condition


def parse_expression(text: str, where: Where, path: str = "") -> Expression:
    """Parse one operand, such as ``now() - 30 days`` or ``revenue / spend``, written inside JSON."""
    try:
        expression: Expression = _run(text, "sum", path)
    except ConditionError as error:
        refuse(where, "expression_invalid", error.problems[0].message, path)
    if isinstance(expression, _Duration):
        refuse(where, "duration_alone", "a duration needs now() or today() before it", path)
    return expression


def _run(text: str, start: str, path: str) -> Any:
    from lark.exceptions import UnexpectedInput  # noqa: PLC0415 - on first use

    if len(text) > BOUNDS.text_characters:
        message = f"the condition has more than {BOUNDS.text_characters} characters; use segments or JSON lists"
        refuse(BOUNDS.text_characters, "too_long", message, path)
    try:
        return _parser(start).parse(text)
    except UnexpectedInput as error:
        _unexpected(text, error, path)
    except ConditionError as error:
        if not path:
            raise
        where = error.context.get("position")
        found = error.problems[0]
        raise ConditionError(problems=[type(found)(path, found.code, found.message)], position=where) from None


@cache
def _parser(start: str) -> "Lark":
    from lark import Lark  # noqa: PLC0415 - on first use: 80 ms

    grammar = files("nexus_marketing.core.conditions").joinpath("grammar.lark").read_text("utf-8")
    return Lark(grammar, parser="lalr", start=start, transformer=_builder(), maybe_placeholders=False)


def _unexpected(text: str, error: Any, path: str) -> NoReturn:
    at = error.pos_in_stream if error.pos_in_stream is not None else len(text)
    token = getattr(error, "token", None)
    if token is not None and token.type == "$END":
        at = len(text)
    names: set[str] = getattr(error, "accepts", None) or getattr(error, "allowed", None) or set()
    wanted = [words for name, words in _EXPECTED.items() if name in names][:6]
    shown = ascii(text[at : at + 12]) if at < len(text) else "the end"
    hint = f"; expected {', '.join(wanted)}" if wanted else ""
    if text[at : at + 1] in {"'", '"'}:
        hint = "; the quote is never closed (double a quote inside a text)"
    refuse(at, "syntax", f"cannot read {shown}{hint}", path)


def _unquote(text: str) -> str:
    return text[1:-1].replace(text[0] * 2, text[0])


def operator_word(text: str) -> str:
    """The JSON spelling of an operator: ``Not In`` is ``not_in``, ``=`` is ``==``."""
    word = re.sub(r"[_\s]+", "_", text.lower())
    word = _SYNONYMS.get(word, word)
    return _OPPOSITES.get(word, word)


def _arithmetic(left: Any, sign: Any, right: Any) -> Expression:
    where: int = sign.start_pos
    if isinstance(right, _Duration) and isinstance(left, Clock) and sign in "+-":
        seconds = left.offset_seconds + (right.seconds if sign == "+" else -right.seconds)
        return _clock(left.kind, seconds, left.where)
    for side in (left, right):
        if isinstance(side, _Duration):
            refuse(side.where, "duration_alone", "a duration needs now() or today() before it")
        if isinstance(side, Clock):
            refuse(side.where, "clock_arithmetic", "a clock takes only a duration, such as now() - 30 days")
    return Arithmetic(str(sign), left, right, where)


def _clock(kind: ClockKind, seconds: int, where: Where) -> Clock:
    if abs(seconds) > MAX_OFFSET_SECONDS:
        refuse(where, "offset_too_long", "a clock moves by at most 100 years")
    if kind is not ClockKind.NOW and seconds % 86_400:
        refuse(where, "offset_not_days", f"{kind}() moves by whole days; use now() for hours and minutes")
    return Clock(kind, seconds, where)


def _leaf(subject: Any, operator: Any, operands: tuple[Any, ...]) -> Leaf:
    for operand in (subject, *operands):
        if isinstance(operand, _Duration):
            refuse(operand.where, "duration_alone", "a duration needs now() or today() before it")
    return Leaf(subject, Operator(operator_word(operator)), operands, where=operator.start_pos)


def _ignoring(leaf: Leaf) -> Leaf:
    if leaf.operator not in CASELESS:
        refuse(leaf.where, "case_not_ignorable", f"{leaf.operator} cannot ignore case; compare text with ==, in, …")
    return Leaf(leaf.subject, leaf.operator, leaf.operands, ignore_case=True, where=leaf.where)


def _null(subject: Any, operator: Any, _null_token: Any) -> Leaf:
    meaning = {"==": Operator.IS_MISSING, "!=": Operator.IS_PRESENT}.get(operator_word(operator))
    if meaning is None:
        refuse(operator.start_pos, "null_compared", "null has no order; use is_missing or is_present")
    return Leaf(subject, meaning, where=operator.start_pos)


def window_seconds(seconds: int, where: Where, path: str = "") -> int:
    """How far back a count looks."""
    if not 0 < seconds <= MAX_OFFSET_SECONDS:
        refuse(where, "offset_too_long", "a count looks back by at most 100 years", path)
    return seconds


def literal(make: Callable[[str], LiteralValue], text: str, where: Where) -> Literal:
    """A literal from its spelling; what is not canonical is refused at its place."""
    try:
        return Literal(make(text), where)
    except ValidationError as error:
        refuse(where, error.problems[0].code, error.problems[0].message)


def _number(text: str) -> int | float:
    return canonical_number(float(text) if re.search("[.eE]", text) or len(text) > 17 else int(text))


def _text(token: Any) -> Literal:
    value = _unquote(token)
    check_literal(value, token.start_pos)
    return literal(canonical_text, value, token.start_pos)


def _duration(token: Any) -> _Duration:
    match = re.match(r"([0-9]+)\s*([A-Za-z]+)", token)
    if match is None or len(match[1]) > 12:
        refuse(token.start_pos, "offset_too_long", "a clock moves by at most 100 years")
    return _Duration(int(match[1]) * UNIT_SECONDS[match[2].lower().rstrip("s")], token.start_pos)


def _name(token: Any) -> FieldRef:
    return FieldRef(token.replace("`", ""), token.start_pos)


@dataclass(frozen=True, slots=True)
class _Event:
    """What stands between the parentheses of ``count(…)``."""

    name: str
    any_verdict: bool
    test: Condition | None


def _event(name: Any, *more: Any) -> _Event:
    test = more[-1] if more and not isinstance(more[-1], str) else None
    any_verdict = bool(more) and isinstance(more[0], str)
    text = _unquote(name) if name.type == "STRING" else name.replace("`", "")
    return _Event(event_name(text, name.start_pos), any_verdict, test)


def event_name(text: str, where: Where, path: str = "") -> str:
    """The name of an event, as events are recorded by."""
    if not EVENT_NAME.fullmatch(text):
        refuse(where, "not_an_event", "an event is named like order_placed: small letters, digits, _ and .", path)
    return text


def whole_number(text: str, where: Where, path: str = "") -> int:
    """What a count is compared with."""
    if not text.isascii() or not text.isdecimal() or len(text) > MAX_COUNT_DIGITS:
        refuse(where, "not_a_count", "a count is compared with a whole number up to 999,999", path)
    return int(text)


def consent_state(text: str, where: Where, path: str = "") -> ConsentIs:
    """The state that consent is compared with."""
    if text not in set(ConsentIs):
        refuse(where, "unknown_state", f"consent is {', '.join(ConsentIs)}, not {text[:40]!a}", path)
    return ConsentIs(text)


def _count(token: Any, event: _Event, operator: Any, number: Any, **span: Any) -> EventCount:
    counted = whole_number(str(number), number.start_pos)
    word = Operator(operator_word(operator))
    return EventCount(
        event.name, word, counted, event.test, **span, any_verdict=event.any_verdict, where=token.start_pos
    )


def _consented(token: Any, *parts: Any) -> Condition:
    *names, operator, state = parts
    word = operator_word(operator)
    if word not in {"==", "!="}:
        refuse(operator.start_pos, "no_order", "consent has no order; use == or !=")
    channel, *type_ = (_text(each).value for each in names)
    kind = str(type_[0]) if type_ else DEFAULT_CONSENT
    found = Consented(str(channel), consent_state(_unquote(state), state.start_pos), kind, token.start_pos)
    return found if word == "==" else Not(found, token.start_pos)


def _scored(token: Any, name: Any, operator: Any, number: Literal) -> Condition:
    word = Operator(operator_word(operator))
    return scored(str(_text(name).value), word, number.value, token.start_pos)


def scored(name: str, operator: Operator, number: object, where: Where, path: str = "") -> Condition:
    """A comparison of a named score; the one that is the lead's own is a field."""
    if operator not in ORDERED:
        refuse(where, "not_a_score", f"a score is compared with {', '.join(sorted(ORDERED))}", path)
    if isinstance(number, bool) or not isinstance(number, (int, float)):
        refuse(where, "not_a_score", "a score is compared with a number", path)
    if not 0 < len(name) <= MAX_SCORE_NAME:
        refuse(where, "not_text", "a score's name is text in quotes", path)
    if name == OWN_SCORE:
        return Leaf(FieldRef(OWN_SCORE, where), operator, (Literal(number, where),), where=where)
    return Scored(name, operator, number, where)


def _segment(token: Any, name: Literal) -> InSegment:
    return InSegment(segment_named(name, token.start_pos), token.start_pos)


def segment_named(name: Literal, where: Where, path: str = "") -> int | str:
    """An id, or a name."""
    value = name.value
    if (
        isinstance(value, bool)
        or not isinstance(value, (int, str))
        or value == ""
        or (isinstance(value, int) and value < 1)
    ):
        refuse(where, "not_a_segment", "in_segment takes the id of a segment, or its name in quotes", path)
    return value


def _group(kind: type[AllOf] | type[AnyOf], terms: tuple[Condition, ...]) -> Condition:
    return kind(terms, terms[0].where)


def _builder() -> Any:
    from lark import Transformer, v_args  # noqa: PLC0415 - on first use

    @v_args(inline=True)
    class Builder(Transformer):  # type: ignore[type-arg]
        """One method per rule of grammar.lark."""

        def any_of(self, *terms: Condition) -> Condition:
            return _group(AnyOf, terms)

        def all_of(self, *terms: Condition) -> Condition:
            return _group(AllOf, terms)

        def negated(self, token: Any, term: Condition) -> Not:
            return Not(term, token.start_pos)

        def custom(self, name: Any, *arguments: Literal) -> Custom:
            return Custom(str(name), arguments, name.start_pos)

        def compare(self, subject: Expression, operator: Any, *operands: Expression) -> Leaf:
            return _leaf(subject, operator, operands)

        def membership(self, subject: Expression, operator: Any, items: tuple[Literal, ...]) -> Leaf:
            return _leaf(subject, operator, items)

        def existence(self, subject: Expression, operator: Any) -> Leaf:
            return _leaf(subject, operator, ())

        def list(self, *items: Literal) -> tuple[Literal, ...]:
            return items

        def signed(self, sign: Any, number: Any) -> Literal:
            return literal(_number, f"{sign}{number}" if sign == "-" else str(number), sign.start_pos)

        def number(self, token: Any) -> Literal:
            return literal(_number, str(token), token.start_pos)

        def boolean(self, token: Any) -> Literal:
            return Literal(token.lower() == "true", token.start_pos)

        def date(self, token: Any) -> Literal:
            return literal(parse_date, str(token), token.start_pos)

        def datetime(self, token: Any) -> Literal:
            return literal(parse_datetime, str(token).upper(), token.start_pos)

        def clock(self, token: Any) -> Clock:
            return Clock(ClockKind(token.lower().split("(")[0]), 0, token.start_pos)

        def event_count(self, token: Any, event: _Event, operator: Any, number: Any) -> EventCount:
            return _count(token, event, operator, number)

        def event_count_within(self, token: Any, event: _Event, operator: Any, number: Any, span: Any) -> EventCount:
            duration = _duration(span)
            return _count(
                token, event, operator, number, within_seconds=window_seconds(duration.seconds, duration.where)
            )

        def event_count_between(
            self, token: Any, event: _Event, operator: Any, number: Any, _between: Any, since: Any, until: Any
        ) -> EventCount:
            first, last = (literal(parse_date, str(each), each.start_pos).value for each in (since, until))
            return _count(token, event, operator, number, since=first, until=last)

        def event_pick(self, token: Any, event: _Event, test: Condition) -> EventPick:
            if event.test is not None:
                refuse(token.start_pos, "where_in_pick", f"{token}(…) has (…): say all of it after has")
            return EventPick(Pick(token.lower()), event.name, test, event.any_verdict, token.start_pos)

        event = staticmethod(_event)
        in_segment = staticmethod(_segment)
        consented = staticmethod(_consented)
        scored = staticmethod(_scored)
        compare_null = staticmethod(_null)
        ignoring_case = staticmethod(_ignoring)
        arithmetic = staticmethod(_arithmetic)
        duration = staticmethod(_duration)
        name = staticmethod(_name)
        text = staticmethod(_text)

    return Builder()
