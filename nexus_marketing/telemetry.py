"""Where the product says what it is doing: counters, timings, named points. Null by default.

Lines and labels carry ids, never personal data or secrets (S15).
"""

import logging
import re
import sys
from collections.abc import Mapping, MutableMapping
from typing import Any, Protocol

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
_PATTERNS = re.compile(
    r"nmk_[A-Za-z0-9_\-]+"  # our API keys
    r"|[A-Za-z0-9._%+\-]+@[A-Za-z0-9.\-]+"  # e-mail addresses
    r"|(?<=://)[^/\s:@]+:[^/\s@]+(?=@)"  # credentials in URLs
    r"|(?<=/[tu]/)[ocu]?/?[A-Za-z0-9_\-]{20,}"  # tracking tokens
    r"|\+\d[\d\s().\-]{6,}\d"  # phone numbers
)
_CONTROL = re.compile(r"[\x00-\x08\x0a-\x1f\x7f\x85\u2028\u2029]")


def scrub(text: str) -> str:
    """The text without keys, addresses, phone numbers, tokens and control characters.

    >>> scrub("bounced for ann@example.org")
    'bounced for [redacted]'
    """
    return _CONTROL.sub(" ", _PATTERNS.sub("[redacted]", text))


def redact(_logger: Any, _method: str, line: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """A structlog processor: secret keys are cut, every other text is scrubbed."""
    for key, value in line.items():
        if key in SECRET_KEYS:
            line[key] = "[redacted]"
        elif isinstance(value, str):
            line[key] = scrub(value)
        elif isinstance(value, BaseException):
            line[key] = scrub(f"{type(value).__name__}: {value}")
        elif isinstance(value, Mapping | list | tuple):
            line[key] = scrub(repr(value))
    return line


def configure_logging(level: str = "INFO", stream: Any = None) -> None:
    """One JSON line per event on ``stream`` (default standard error), libraries' lines included."""
    shared = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                structlog.processors.format_exc_info,
                redact,
                structlog.processors.JSONRenderer(sort_keys=True),
            ],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=True,
    )


def get_logger(name: str) -> Any:
    """A structured logger: ``log.info("what_happened", tenant_id=…)``."""
    return structlog.get_logger(name)
