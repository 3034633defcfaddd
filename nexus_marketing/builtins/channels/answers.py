"""What answers of HTTP APIs have in common."""

import json
from collections.abc import Mapping
from typing import Any


def document_of(body: bytes) -> Mapping[str, Any]:
    """The object of an answer; nothing where it is none.

    >>> document_of(b'{"id": "1"}'), document_of(b"<html>"), document_of(b"[1]")
    ({'id': '1'}, {}, {})
    """
    return object_of(json_of(body))


def object_of(value: Any) -> Mapping[str, Any]:
    """A part of an answer that should be an object; nothing where it is none."""
    return value if isinstance(value, dict) else {}


def json_of(body: bytes) -> Any:
    """What an answer holds; nothing where it is no JSON."""
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        return None


def words_of(value: Any, most: int) -> str:
    """A text or number of an answer as it can be stored, no longer than that; nothing where it is neither.

    >>> words_of("a" + chr(0) + "b" + chr(0xD800), 10), words_of(7, 10), words_of(["a"], 10)
    ('ab?', '7', '')
    """
    if isinstance(value, bool) or not isinstance(value, str | int):
        return ""
    return str(value)[:most].encode("utf-8", "replace").decode().replace("\x00", "")
