"""Where the product says what it is doing: counters, timings, named points. Null by default.

Lines and labels carry ids, never personal data or secrets (S15).
"""

import logging
import re
import sys
from collections.abc import Mapping, MutableMapping, Sequence
from datetime import date, timedelta
from decimal import Decimal
from pathlib import PurePath
from typing import Any, Final, Protocol
from uuid import UUID

import structlog


class Telemetry(Protocol):
    """What a unit of work reports to."""

    def point(self, name: str) -> None:
        """The work passed a named place, ``topic.place``: traces hang spans here, chaos runs faults."""
        ...

    def count(self, name: str, amount: int = 1, **labels: str) -> None:
        """Add to a counter."""
        ...

    def observe(self, name: str, seconds: float, **labels: str) -> None:
        """Record a duration in seconds."""
        ...


class NullTelemetry:
    """Reports nowhere."""

    def point(self, name: str) -> None:
        """Nothing."""

    def count(self, name: str, amount: int = 1, **labels: str) -> None:
        """Nothing."""

    def observe(self, name: str, seconds: float, **labels: str) -> None:
        """Nothing."""


#: Keys whose values never reach a log line, whatever they hold.
SECRET_KEYS = frozenset(
    {
        "address",
        "api_key",
        "authorization",
        "body",
        "cookie",
        "email",
        "first_name",
        "ip",
        "ip_address",
        "last_name",
        "name",
        "password",
        "phone",
        "recipient",
        "secret",
        "token",
        "values",
    }
)
#: Libraries that would log addresses with their query, and headers with their logins.
_SECRETIVE = ("httpx", "httpcore")
#: So do those of keys that end like this.
_SECRET_ENDINGS = ("_address", "_email", "_key", "_password", "_phone", "_secret", "_token")
# Every repetition is bounded or ends at a character it cannot contain: hostile text costs linear time.
_PATTERNS = re.compile(
    r"nmk_[A-Za-z0-9_\-]+"  # our API keys
    r"|(?<=://)[^/\s:@]*:[^/\s@]+(?=@)"  # credentials in URLs
    r"|[^\s@\"'<>(),;:=\[\]{}]{1,64}@[^\s@\"'<>(),;:=\[\]{}]+"  # e-mail addresses, international ones too
    r"|AQ[A-Za-z0-9_\-]{52,}"  # tracking tokens begin with their version
    r"|(?<=Bearer )\S+"
    r"|\+\d[\d\s().\-]{6,}\d"  # phone numbers
    # What PostgreSQL says of the rows that an error is about, up to what follows in a trace.
    r"|(?:D[E\u00c9]TAIL|CONTEXT) ?:(?s:.*?)(?=\n\[SQL|\nThe above exception|\nDuring handling|\Z)"
)
_CONTROL = re.compile(r"[\x00-\x08\x0a-\x1f\x7f\x85\u2028\u2029]")


def scrub(text: str) -> str:
    """The text without keys, addresses, phone numbers, tokens and control characters.

    >>> scrub("bounced for ann@example.org")
    'bounced for [redacted]'
    """
    return _CONTROL.sub(" ", _PATTERNS.sub("[redacted]", text))


def redact(_logger: Any, _method: str, line: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """A structlog processor: secret keys are cut at any depth, every other text is scrubbed."""
    for key, value in line.items():
        line[key] = _without_secrets(key, value)
    return line


def _without_secrets(key: str, value: Any) -> Any:
    if _is_secret(key):
        return "[redacted]"
    if value is None or isinstance(value, bool | int | float):
        return value
    if isinstance(value, str):
        return scrub(value)
    if isinstance(value, bytes | bytearray | memoryview):
        return "[bytes]"
    if isinstance(value, Mapping):
        return {scrub(str(each)): _without_secrets(str(each), inner) for each, inner in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_without_secrets("", each) for each in value]
    if isinstance(value, BaseException):
        return scrub(f"{type(value).__name__}: {value}")
    if isinstance(value, date | timedelta | Decimal | PurePath | UUID):
        return scrub(str(value))
    # Anything else would be rendered by its repr, which may show whatever it holds.
    return f"[{type(value).__name__}]"


def _is_secret(key: str) -> bool:
    lowered = key.lower()
    return lowered in SECRET_KEYS or lowered.endswith(_SECRET_ENDINGS)


_SHARED: Final[Sequence[Any]] = (
    structlog.contextvars.merge_contextvars,
    structlog.stdlib.add_log_level,
    structlog.processors.TimeStamper(fmt="iso", utc=True),
)
#: How an event becomes a line.
_RENDERING: Final[Sequence[Any]] = (
    structlog.processors.format_exc_info,
    redact,
    structlog.processors.JSONRenderer(sort_keys=True),
)


def log_discreetly() -> None:
    """Inside a program that has not set logging up: lines go where Python's own go, redacted.

    structlog's own default prints to standard output, and with an error the values of all variables around it.
    """
    if not structlog.is_configured():
        processors = [structlog.stdlib.filter_by_level, *_SHARED, *_RENDERING]
        structlog.configure(processors=processors, logger_factory=structlog.stdlib.LoggerFactory())


log_discreetly()


def configure_logging(level: str = "INFO", stream: Any = None) -> None:
    """One JSON line per event on ``stream`` (default standard error), libraries' lines included."""
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=_SHARED,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *_RENDERING],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
    # It tells of each connection that fails in eight lines; the doorbell tells of it in one.
    logging.getLogger("pika").setLevel(logging.CRITICAL)
    for name in _SECRETIVE:
        logging.getLogger(name).setLevel(logging.WARNING)
    structlog.configure(
        processors=[*_SHARED, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=True,
    )


def get_logger(name: str) -> Any:
    """A structured logger: ``log.info("what_happened", tenant_id=…)``."""
    return structlog.get_logger(name)
