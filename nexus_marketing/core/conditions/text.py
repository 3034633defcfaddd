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
    Custom,
    Expression,
    FieldRef,
    Leaf,
    Literal,
    LiteralValue,
    Not,
    Operator,
    Where,
)
from nexus_marketing.core.errors import ConditionError, ValidationError
from nexus_marketing.core.values import UNIT_SECONDS, canonical_number, canonical_text, parse_date, parse_datetime

if TYPE_CHECKING:
    from lark import Lark

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

        compare_null = staticmethod(_null)
        ignoring_case = staticmethod(_ignoring)
        arithmetic = staticmethod(_arithmetic)
        duration = staticmethod(_duration)
        name = staticmethod(_name)
        text = staticmethod(_text)

    return Builder()
