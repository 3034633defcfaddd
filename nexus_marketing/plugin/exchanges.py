"""What goes out by HTTP and what comes back, as plugins see it; nothing here connects to anybody.

:mod:`nexus_marketing.plugin.http` does, on the host's side. A plugin gets something that keeps :class:`Http` from its
context, the same in our processes and in the sandbox.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from email.utils import parsedate_to_datetime
from typing import Final, Protocol

from nexus_marketing.core.errors import HostRefused, Unavailable

_LONGEST_RETRY_AFTER_SECONDS: Final = 24 * 3600.0


class NotReached(Unavailable):
    """No connection: the request cannot have arrived."""

    code = "not_reached"


class OverRate(NotReached):
    """The plugin asks more often than the operator lets it: nothing has left, wait ``retry_after_seconds``."""

    code = "over_rate"


class NoAnswer(Unavailable):
    """The request may have arrived, and nobody knows what became of it."""

    code = "no_answer"


class NotGranted(HostRefused):
    """The operator has not granted this host or secret to the plugin."""

    code = "not_granted"


@dataclass(frozen=True, slots=True)
class Request:
    """One request. Headers and body may hold secrets, so that neither is ever shown."""

    method: str
    url: str
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    body: bytes = field(default=b"", repr=False)


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back: header names in lower case; ``body`` is what of it arrived, in time and below the limit."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    def retry_after_seconds(self, now: datetime) -> float | None:
        """What ``Retry-After`` asks for, in either form of RFC 9110 10.2.3, at most a day; nothing if it is not readable."""
        text = self.headers.get("retry-after", "").strip()
        if text.isascii() and text.isdigit():
            seconds = float(text[:12])
        else:
            try:
                seconds = (parsedate_to_datetime(text) - now).total_seconds()
            except (ValueError, TypeError, OverflowError):
                return None
        return min(max(seconds, 0.0), _LONGEST_RETRY_AFTER_SECONDS)


def _nothing() -> None:
    """Nobody wants to know."""


class Http(Protocol):
    """The way out."""

    def check(self, url: str) -> None:
        """Say now what can be said of an address without asking anybody.

        Raises:
            HostRefused: naming what is wrong with it, and the setting that would allow it.
        """
        ...

    def send(self, request: Request, *, on_wire: Callable[[], None] = _nothing) -> Answer:
        """One exchange, without a repetition; ``on_wire`` is called before the byte that completes the request may leave.

        Raises:
            HostRefused: the address is not one that we connect to, or not granted (``NotGranted``).
            NotReached: nothing that the other side could act on has left; ``on_wire`` was not called.
            NoAnswer: it was, and no status came back in time.
            ValidationError: there can be no such request, for instance with a line break in a header.
        """
        ...
