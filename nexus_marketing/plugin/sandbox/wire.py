"""What crosses between the host and a sandboxed plugin: lines of JSON, read back into the types of the contracts.

The other side is believed nothing: whatever does not have the form that the contract says is :class:`Garbage`.

>>> from nexus_marketing.plugin import Outcome
>>> reader(Outcome)(["0", "accepted", "", "", None])
Traceback (most recent call last):
...
nexus_marketing.plugin.sandbox.wire.Garbage: '0' is no int
"""

import types
from base64 import b64decode, b64encode
from collections.abc import Callable, Collection, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import fields, is_dataclass
from datetime import date, datetime
from enum import Enum
from functools import lru_cache
from typing import Any, Final, Union, get_args, get_origin, get_type_hints

import orjson

Read = Callable[[Any], Any]
#: No side writes a longer line.
MAX_LINE_BYTES: Final = 4_000_000
_OPTIONS: Final = orjson.OPT_APPEND_NEWLINE | orjson.OPT_NON_STR_KEYS


class Garbage(Exception):
    """What came is not what the contract says."""


def written(document: Any) -> bytes:
    """One line.

    Raises:
        TypeError: something of it has no form in JSON.
    """
    try:
        return orjson.dumps(document, _other, orjson.OPT_APPEND_NEWLINE)
    except TypeError:  # keys that are no plain text: rare, and slower for everybody
        return orjson.dumps(document, _other, _OPTIONS)


def _other(value: Any) -> Any:
    if isinstance(value, tuple | AbstractSet):
        return list(value)
    if isinstance(value, bytes):
        return b64encode(value).decode()
    if isinstance(value, Mapping):
        return dict(value)
    raise TypeError(f"{type(value).__name__} cannot cross the sandbox")


def parsed(line: bytes) -> list[Any]:
    """A line as it came: a list that begins with a word.

    Raises:
        Garbage: it is something else.
    """
    try:
        found = orjson.loads(line)
    except orjson.JSONDecodeError as error:
        raise Garbage("what was written is no JSON") from error
    if not isinstance(found, list) or not found or not isinstance(found[0], str):
        raise Garbage("what was written is no message")
    return found


@lru_cache(maxsize=1_000)
def reader(kind: Any) -> Read:
    """How a value of a type is read from JSON.

    Raises:
        TypeError: there is no form for it.
    """
    if kind is Any or kind is object:
        return lambda value: value
    if kind is None or kind is type(None):
        return _of_type(type(None))
    origin = get_origin(kind)
    if origin in (Union, types.UnionType):
        return _union(get_args(kind))
    if origin is not None:
        return _generic(origin, get_args(kind))
    return _plain(kind)


def _plain(kind: Any) -> Read:
    if kind is datetime:
        return _datetime
    if kind is date:
        return _date
    if kind is bytes:
        return _bytes
    if kind is float:
        return _float
    if kind in (str, int, bool):
        return _of_type(kind)
    if issubclass(kind, Enum):
        return _enum(kind)
    if is_dataclass(kind):
        return _dataclass(kind)
    if hasattr(kind, "_fields"):
        return _named_tuple(kind)
    raise TypeError(f"{kind!r} cannot cross the sandbox")


def _of_type(kind: type) -> Read:
    def read(value: Any) -> Any:
        if type(value) is not kind:
            raise Garbage(f"{value!a:.60} is no {kind.__name__}")
        return value

    return read


def _float(value: Any) -> float:
    if type(value) not in (int, float):
        raise Garbage(f"{value!a:.60} is no number")
    return float(value)


def _datetime(value: Any) -> datetime:
    try:
        return datetime.fromisoformat(value)
    except (TypeError, ValueError) as error:
        raise Garbage(f"{value!a:.60} is no moment") from error


def _date(value: Any) -> date:
    try:
        return date.fromisoformat(value)
    except (TypeError, ValueError) as error:
        raise Garbage(f"{value!a:.60} is no day") from error


def _bytes(value: Any) -> bytes:
    try:
        return b64decode(value, validate=True)
    except (TypeError, ValueError) as error:
        raise Garbage("bytes are not written as base64") from error


def _enum(kind: type[Enum]) -> Read:
    def read(value: Any) -> Enum:
        try:
            return kind(value)
        except ValueError as error:
            raise Garbage(f"{value!a:.60} is none of {kind.__name__}") from error

    return read


def _dataclass(kind: Any) -> Read:
    hints = get_type_hints(kind)
    readers = {each.name: reader(hints[each.name]) for each in fields(kind) if each.init}

    def read(value: Any) -> Any:
        if type(value) is not dict or value.keys() != readers.keys():
            raise Garbage(f"what came is no {kind.__name__}")
        return kind(**{name: read(value[name]) for name, read in readers.items()})

    return read


def _named_tuple(kind: Any) -> Read:
    hints = get_type_hints(kind)
    readers = [reader(hints[name]) for name in kind._fields]

    def read(value: Any) -> Any:
        if type(value) is not list or len(value) != len(readers):
            raise Garbage(f"what came is no {kind.__name__}")
        return kind._make([read(each) for read, each in zip(readers, value, strict=True)])

    return read


def _generic(origin: Any, arguments: tuple[Any, ...]) -> Read:
    if issubclass(origin, Mapping):
        return _mapping(*map(reader, arguments))
    if issubclass(origin, Collection):
        into = frozenset if issubclass(origin, AbstractSet) else tuple
        return _collection(reader(arguments[0]), into)
    raise TypeError(f"{origin!r} cannot cross the sandbox")


def _mapping(key: Read, content: Read) -> Read:
    def read(value: Any) -> Any:
        if type(value) is not dict:
            raise Garbage(f"{value!a:.60} is no mapping")
        return {key(name): content(each) for name, each in value.items()}

    return read


def _collection(item: Read, into: Callable[[Any], Any]) -> Read:
    def read(value: Any) -> Any:
        if type(value) is not list:
            raise Garbage(f"{value!a:.60} is no list")
        return into([item(each) for each in value])

    return read


def _union(kinds: tuple[Any, ...]) -> Read:
    """The first that takes it: those of the contracts are told apart by their form."""
    readers = [reader(each) for each in kinds]

    def read(value: Any) -> Any:
        for each in readers:
            try:
                return each(value)
            except Garbage:
                continue
        raise Garbage(f"{value!a:.60} is none of what it may be")

    return read


@lru_cache(maxsize=1_000)
def believing(kind: Any) -> Read | None:
    """As :func:`reader`, for what the host says to the plugin: only what has another form in JSON is made again.

    Returns:
        Nothing where a value stays what it is.
    """
    if kind in (str, int, float, bool, None, type(None), Any, object):
        return None
    origin, arguments = get_origin(kind), get_args(kind)
    if origin in (Union, types.UnionType):
        return None if all(believing(each) is None for each in arguments) else reader(kind)
    if origin is not None and issubclass(origin, Mapping):
        return None if believing(arguments[1]) is None and arguments[0] is str else reader(kind)
    made: Read = _made(kind) if is_dataclass(kind) else reader(kind)
    return made


def _made(kind: Any) -> Read:
    hints = get_type_hints(kind)
    changed = [(name, each) for name, hint in hints.items() if (each := believing(hint)) is not None]

    def read(value: Any) -> Any:
        for name, each in changed:
            value[name] = each(value[name])
        return kind(**value)

    return read
