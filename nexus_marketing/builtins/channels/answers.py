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
