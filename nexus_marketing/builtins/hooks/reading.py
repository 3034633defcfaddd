"""Reading what providers send: any shape may come, and none may make us fail."""

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from email.utils import parseaddr
from typing import Any, Protocol

from nexus_marketing.core.contracts import ProviderEvent


class ProviderHook(Protocol):
    """One provider's way of reporting; as ``HearingChannel`` without the tenant's settings."""

    def verify(self, headers: Mapping[str, str], body: bytes) -> bool:
        """Whether this comes from the provider."""
        ...

    def parse_events(self, headers: Mapping[str, str], body: bytes) -> Sequence[ProviderEvent]:
        """What it says."""
        ...


def document_of(body: bytes | str) -> Any:
    """The JSON of a body; nothing where it is none."""
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        return None


def member(value: Any, *path: str) -> Any:
    """What lies below these names; nothing where one of them is missing or leads to no object."""
    for name in path:
        value = value.get(name) if isinstance(value, dict) else None
    return value


def text_of(value: Any, *path: str) -> str:
    """The same as text: numbers as they are written, everything else as nothing."""
    found = member(value, *path)
    if isinstance(found, str):
        return found
    return str(found) if isinstance(found, int) and not isinstance(found, bool) and abs(found) < 10**30 else ""


def items_of(value: Any, *path: str) -> list[Any]:
    """The objects of a list; none where it is no list."""
    found = member(value, *path)
    return [each for each in found if isinstance(each, dict)] if isinstance(found, list) else []


def address_of(text: str) -> str:
    """``jane@example.com`` of ``"Jane" <jane@example.com>``."""
    return parseaddr(text[:400])[1] if "<" in text else text.strip()


def moment_of(text: str) -> datetime | None:
    """A moment of ISO 8601; nothing where it is none, or says no zone."""
    try:
        found = datetime.fromisoformat(text)
        return found.astimezone(UTC) if found.tzinfo is not None else None
    except (ValueError, OverflowError):
        return None


def moment_of_seconds(value: Any) -> datetime | None:
    """A moment of seconds since 1970."""
    try:
        return datetime.fromtimestamp(float(value), UTC)
    except (ValueError, TypeError, OverflowError, OSError):
        return None
