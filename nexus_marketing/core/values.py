"""Canonical values: the one form in which every value is stored, compared and sent.

The three engines that evaluate conditions (Python, SQLite, PostgreSQL) disagree about huge
numbers, NaN, NUL, lone surrogates, duplicate keys and look-alike text. Values that pass through
here have one meaning in all of them. The form is JSON as RFC 7493 (I-JSON) narrows it.

>>> canonical({"plan": "pro", "seats": 3.0})
{'plan': 'pro', 'seats': 3}
"""

import json
import math
import re
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta, timezone
from operator import itemgetter
from typing import Any, Final, NoReturn, overload

from nexus_marketing.core.errors import Problem, ValidationError

Scalar = bool | int | float | str | None
Canonical = Scalar | list["Canonical"] | dict[str, "Canonical"]

MAX_INTEGER: Final = 2**53 - 1
DATE_SHAPE: Final = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}\Z")
DATETIME_SHAPE: Final = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}\.[0-9]{6}Z\Z")
_DATETIME: Final = re.compile(
    r"([0-9]{4})-([0-9]{2})-([0-9]{2})[T ]([0-9]{2}):([0-9]{2})(?::([0-9]{2})(?:\.([0-9]{1,6}))?)?"
    r"(?:(Z|z)|([+-])([0-9]{2}):?([0-9]{2}))\Z"
)
UNIT_SECONDS: Final = {"week": 604_800, "day": 86_400, "hour": 3_600, "minute": 60, "second": 1}
_DURATION: Final = re.compile(r"\s*([0-9]+)\s*(second|minute|hour|day|week)s?\s*\Z", re.IGNORECASE)
_LOCAL_TIME: Final = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d\Z")
_SURROGATE: Final = re.compile("[\ud800-\udfff]")


@dataclass(frozen=True, slots=True)
class Limits:
    """How large a value may be; one document is one stored JSON column or one request value."""

    depth: int = 16
    items: int = 10_000
    text_characters: int = 65_536
    total_characters: int = 262_144


DEFAULT_LIMITS: Final = Limits()


@overload
def canonical(value: Mapping[str, object], path: str = "", limits: Limits = DEFAULT_LIMITS) -> dict[str, Any]: ...
@overload
def canonical(value: object, path: str = "", limits: Limits = DEFAULT_LIMITS) -> Canonical: ...
def canonical(value: object, path: str = "", limits: Limits = DEFAULT_LIMITS) -> Any:
    """Return the one stored form of ``value``, or refuse it with path, value and remedy.

    Integers lie within ±(2^53 − 1); integral doubles become integers and −0 becomes 0; text is in
    NFC without NUL and lone surrogates; dates and aware datetimes become fixed-width text.

    Raises:
        ValidationError: the first value that has no canonical form (code ``not_canonical``), or a
            bound of ``limits`` that is exceeded (code ``too_large``).
    """
    return _Walk(limits).value(value, path, 0)


def parse_json(text: str | bytes, path: str = "", limits: Limits = DEFAULT_LIMITS) -> Canonical:
    """Parse JSON text into a canonical value; the last of duplicate keys wins (RFC 7493 forbids them)."""
    if len(text) > 4 * limits.total_characters:
        _too_large(path, f"the JSON text has {len(text)} characters", 4 * limits.total_characters)
    try:
        parsed: object = json.loads(text, parse_constant=lambda name: _no_number(path, name))
    except RecursionError:
        _too_large(path, "the JSON text is nested too deeply", limits.depth)
    except UnicodeDecodeError as error:
        _refuse(path, f"byte {error.start + 1} is not UTF-8; send UTF-8")
    except json.JSONDecodeError as error:
        raise ValidationError.at(
            path, "not_json", f"not JSON at line {error.lineno}, column {error.colno}: {error.msg}"
        ) from None
    except ValueError:  # an integer of more digits than the interpreter converts
        _refuse(path, "a number has too many digits; store it as text")
    return canonical(parsed, path, limits)


def readable(value: object, path: str = "", limits: Limits = DEFAULT_LIMITS) -> tuple[Canonical, tuple[Problem, ...]]:
    """The canonical form for reading a stranger's object: what has none is missing, and reported.

    Members are judged one by one, so that one bad attribute does not hide the others.
    """
    problems: list[Problem] = []
    if not isinstance(value, Mapping):
        return _or_missing(value, path, limits, problems), tuple(problems)
    result: dict[str, Canonical] = {}
    for key, member in value.items():
        name = str(key)
        result[name] = _or_missing(member, join(path, name), limits, problems)
    return result, tuple(problems)


def canonical_text(text: str, path: str = "", limits: Limits = DEFAULT_LIMITS) -> str:
    """Text in NFC without NUL and lone surrogates, within the length bound."""
    if len(text) > limits.text_characters:
        _too_large(path, f"the text has {len(text)} characters", limits.text_characters)
    if text.isascii():
        if "\x00" in text:
            _refuse(path, f"{_shown(text)} contains NUL; remove the character U+0000")
        return str(text)
    if "\x00" in text:
        _refuse(path, f"{_shown(text)} contains NUL; remove the character U+0000")
    if _SURROGATE.search(text):
        _refuse(path, f"{_shown(text)} contains half of a surrogate pair; send whole characters")
    return unicodedata.normalize("NFC", text)


def canonical_number(number: float, path: str = "") -> int | float:
    """An integer within ±(2^53 − 1) or a finite double with a fraction."""
    if isinstance(number, float):
        if not math.isfinite(number):
            _no_number(path, str(number))
        if not number.is_integer():
            return float(number)
    if not -MAX_INTEGER <= number <= MAX_INTEGER:
        _refuse(path, f"{_shown(number)} is beyond ±(2^53 - 1), where numbers lose digits; store it as text")
    return int(number)


def canonical_datetime(moment: datetime, path: str = "") -> str:
    """Fixed-width UTC text such as ``2026-03-29T01:30:00.000000Z``, whose order is the order of time."""
    if moment.tzinfo is None or moment.utcoffset() is None:
        _refuse(path, f"{moment.isoformat()} has no time zone; add an offset or Z")
    try:
        utc = moment.astimezone(UTC).replace(tzinfo=None)
    except OverflowError:
        _refuse(path, f"{moment.isoformat()} leaves the years 0001 to 9999 in UTC; use a date within them")
    return utc.isoformat(timespec="microseconds") + "Z"


def parse_date(text: str, path: str = "") -> date:
    """A calendar date from ``YYYY-MM-DD``; ``2026-02-30`` is refused, not moved."""
    if DATE_SHAPE.match(text):
        try:
            return date(int(text[:4]), int(text[5:7]), int(text[8:]))
        except ValueError:
            pass
    _refuse(path, f"{_shown(text)} is not a date; write YYYY-MM-DD, years 0001 to 9999", code="not_a_date")


def parse_datetime(text: str, path: str = "") -> datetime:
    """An aware UTC datetime from ISO 8601 with an offset or ``Z``; ``T24:00`` and leap seconds are refused."""
    match = _DATETIME.match(text)
    if match:
        (year, month, day, hour, minute, second, fraction, _, sign, off_hours, off_minutes) = match.groups()
        offset = timedelta(hours=int(off_hours or 0), minutes=int(off_minutes or 0))
        micros = int((fraction or "0").ljust(6, "0"))
        try:
            zone = timezone(-offset if sign == "-" else offset)
            parts = [int(part or 0) for part in (year, month, day, hour, minute, second)]
            return datetime(*parts, micros, tzinfo=zone).astimezone(UTC)  # type: ignore[arg-type, misc]
        except (ValueError, OverflowError):
            pass
    message = f"{_shown(text)} is not a point in time; write YYYY-MM-DDThh:mm:ssZ with Z or an offset"
    _refuse(path, message, code="not_a_datetime")


def parse_local_time(text: str, path: str = "") -> datetime:
    """A reading of the clock on a day, without a zone: it is another moment in each.

    >>> parse_local_time("2026-12-01T09:00")
    datetime.datetime(2026, 12, 1, 9, 0)
    """
    if _LOCAL_TIME.match(text):
        with suppress(ValueError):
            return datetime.fromisoformat(text)
    message = f"{_shown(text)} is not a local time; write YYYY-MM-DDThh:mm without Z and without an offset"
    _refuse(path, message, code="not_a_local_time")


def parse_duration(text: str, path: str = "") -> timedelta:
    """A length of time such as ``24 hours`` or ``2 days``.

    >>> parse_duration("2 days")
    datetime.timedelta(days=2)
    """
    match = _DURATION.match(text)
    if match and len(match[1]) <= 9:
        with suppress(OverflowError):
            return timedelta(seconds=int(match[1]) * UNIT_SECONDS[match[2].lower()])
    message = f"{_shown(text)} is not a length of time; write a number and seconds, minutes, hours, days or weeks"
    _refuse(path, message, code="not_a_duration")


def fold(text: str) -> str:
    """The case-insensitive companion of a text (Unicode canonical caseless matching, D145), in NFC.

    Written by Python only: databases fold ``İ`` and ``ΣΑΣ`` each in their own way.
    """
    if text.isascii():
        return text.lower()
    folded = unicodedata.normalize("NFD", unicodedata.normalize("NFD", text).casefold())
    return unicodedata.normalize("NFC", folded)


def email_norm(address: str) -> str:
    """The form under which two spellings are one mailbox: trimmed, lower case, domain as A-labels.

    Total: text that is no address is only lowered, so that a search literal can be folded by it.
    ``ß`` and ``ss`` stay apart, because they are two mailboxes.
    """
    lowered = unicodedata.normalize("NFC", address.strip().lower())
    local, at, domain = lowered.rpartition("@")
    if lowered.isascii() or not at or domain.isascii():
        return lowered
    return f"{local}@{'.'.join(map(_a_label, domain.split('.')))}"


def normalise_email(address: str, path: str = "email") -> str:
    """``email_norm`` for storage: refuses what cannot be one address of at most 254 characters (RFC 5321)."""
    text = email_norm(canonical_text(address, path))
    local, at, domain = text.rpartition("@")
    if any(character.isspace() or not character.isprintable() for character in text):
        _refuse(path, f"{_shown(address)} contains white space or control characters", code="not_an_email")
    if not (at and 0 < len(local) <= 64 and domain and "@" not in local and len(text) <= 254):
        _refuse(path, f"{_shown(address)} is not an e-mail address; write name@example.com", code="not_an_email")
    return text


def picker(keys: Sequence[Any]) -> Callable[[Any], tuple[Any, ...]]:
    """What takes the values of these keys out of a mapping, or of these places out of a sequence, as fast as it goes.

    >>> picker(["b", "a"])({"a": 1, "b": 2}), picker([0])("xyz"), picker([])("xyz")
    ((2, 1), ('x',), ())
    """
    if len(keys) > 1:
        return itemgetter(*keys)
    if not keys:
        return lambda _values: ()
    (key,) = keys
    return lambda values: (values[key],)


def join(path: str, key: str | int) -> str:
    """One step further down a dotted path."""
    return f"{path}.{key}" if path else str(key)


class _Walk:
    """One pass over one document, counting what it has seen."""

    __slots__ = ("characters", "items", "limits")

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self.items = 0
        self.characters = 0

    def value(self, value: object, path: str, depth: int) -> Canonical:
        self.items += 1
        if self.items > self.limits.items:
            _too_large(path, f"more than {self.limits.items} values", self.limits.items)
        if value is None or value is True or value is False:
            return value
        if isinstance(value, str):
            return self.text(value, path)
        if isinstance(value, (int, float)):
            return canonical_number(value, path)
        if isinstance(value, datetime):
            return canonical_datetime(value, path)
        if isinstance(value, date):
            return value.isoformat()
        return self.nested(value, path, depth + 1)

    def text(self, text: str, path: str) -> str:
        self.characters += len(text)
        if self.characters > self.limits.total_characters:
            _too_large(path, "the texts together are too long", self.limits.total_characters)
        return canonical_text(text, path, self.limits)

    def nested(self, value: object, path: str, depth: int) -> Canonical:
        if depth > self.limits.depth:
            _too_large(path, "nested too deeply", self.limits.depth)
        if isinstance(value, Mapping):
            return self.members(value, path, depth)
        if isinstance(value, Sequence) and not isinstance(value, (bytes, bytearray, memoryview)):
            return [self.value(member, join(path, index), depth) for index, member in enumerate(value)]
        kind = type(value).__name__
        _refuse(path, f"a {kind} has no JSON form; store it as text, number, boolean, list or object")

    def members(self, value: Mapping[object, object], path: str, depth: int) -> Canonical:
        result: dict[str, Canonical] = {}
        for key, member in value.items():
            if not isinstance(key, str):
                _refuse(path, f"the key {_shown(key)} is not text; use text keys")
            result[self.text(key, path)] = self.value(member, join(path, key), depth)
        return result


def _or_missing(value: object, path: str, limits: Limits, problems: list[Problem]) -> Canonical:
    try:
        return canonical(value, path, limits)
    except ValidationError as error:
        problems.extend(error.problems)
        return None


def _a_label(label: str) -> str:
    return label if label.isascii() else "xn--" + label.encode("punycode").decode("ascii")


def _shown(value: object) -> str:
    if isinstance(value, int) and not -(2**256) < value < 2**256:
        return "an integer of more than 77 digits"  # the interpreter refuses to print very long ones
    text = ascii(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _no_number(path: str, name: str) -> NoReturn:
    _refuse(path, f"{name} is not a number that can be stored; leave it out or store it as text")


def _refuse(path: str, message: str, code: str = "not_canonical") -> NoReturn:
    raise ValidationError.at(path, code, message)


def _too_large(path: str, what: str, bound: int) -> NoReturn:
    raise ValidationError.at(path, "too_large", f"{what}; the bound is {bound}")
