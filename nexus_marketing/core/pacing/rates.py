"""How fast may be sent: exact sliding windows over grants (BEHAVIOUR.md 5.2, Rate control).

A message may leave with a grant. Grants are remembered with their moment; as many are given as keep every interval of the
window's length at the limit or below. A grant is used within a short *slack*, by which the window is made longer: what left
late still lies inside.
A server that stalls in the middle of a window may be handed its rest later than that: at most the two windows that a worker
has open.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

from nexus_marketing.core.pacing.tables import Table, checked_tables

_LONGEST: Final = timedelta(days=31)
_MOST: Final = 1_000_000_000
_SLACK: Final = timedelta(seconds=1)
#: What marketing leaves of every limit to messages that somebody waits for.
RESERVED: Final = 0.1
#: Grants older than this are put together, those of a minute into one: a day's window stays small to read.
MERGE_AFTER: Final = timedelta(minutes=2)


@dataclass(frozen=True, slots=True)
class RateLimit:
    """At most ``count`` messages in any interval of ``per``, on one channel or (``None``) on each of them."""

    count: int
    per: timedelta
    channel: str | None = None

    @property
    def reach(self) -> timedelta:
        """How far back grants count: the window and the slack, a tenth of it up to a second."""
        return self.per + min(_SLACK, self.per / 10)


@dataclass(frozen=True, slots=True, order=True)
class Given:
    """So many were granted then."""

    at: datetime
    count: int


@dataclass(frozen=True, slots=True)
class Grant:
    """How many may leave now; where that is none, when to ask again."""

    count: int
    retry_after: timedelta = timedelta()


def grant(
    limits: Iterable[RateLimit], given: Sequence[Given], wanted: int, now: datetime, *, is_marketing: bool
) -> Grant:
    """How many of the wanted messages may leave now; every limit must agree.

    Args:
        limits: those of the channel.
        given: grants of before, oldest first; those that no window reaches may be left out.
        wanted: messages that are ready.
        now: the moment.
        is_marketing: leaves :data:`RESERVED` of each limit to others.
    """
    found, retry_after = wanted, timedelta()
    for limit in limits:
        most = max(1, int(limit.count * (1 - RESERVED))) if is_marketing else limit.count
        recent = [each for each in given if each.at > now - limit.reach]
        free = most - sum(each.count for each in recent)
        if free <= 0:
            retry_after = max(retry_after, _wait(recent, 1 - free, limit, now))
        found = min(found, max(0, free))
    return Grant(found, timedelta() if found else retry_after)


def _wait(recent: Sequence[Given], needed: int, limit: RateLimit, now: datetime) -> timedelta:
    """Until enough of the oldest grants are out of the window."""
    for each in recent:
        needed -= each.count
        if needed <= 0:
            return each.at + limit.reach - now
    return limit.reach


def merged(given: Sequence[Given]) -> list[Given]:
    """The same grants, those of a minute as one at the moment of the last: never counted for a shorter time."""
    found: dict[datetime, Given] = {}
    for each in given:
        minute = each.at.replace(second=0, microsecond=0)
        known = found.get(minute, Given(each.at, 0))
        found[minute] = Given(max(known.at, each.at), known.count + each.count)
    return sorted(found.values())


def rates_of(settings: Mapping[str, Any], channel: str) -> tuple[RateLimit, ...]:
    """The limits of a tenant for a channel, from its stored settings."""
    limits = (_rate(Table(document)) for document in settings.get("send_rates", ()))
    return tuple(limit for limit in limits if limit.channel in (None, channel))


def check_rates(value: object) -> list[dict[str, Any]]:
    """Send rates as a tenant writes them down, in the form in which they are stored.

    Each is a table: ``count`` (1 to a billion), ``per`` (a span up to 31 days such as ``"1 second"`` or ``"1 day"``), and, if
    wanted, ``channel``.

    Raises:
        ValidationError: every fault with its place.
    """
    return checked_tables(value, "send_rates", _rate)


def _rate(table: Table) -> RateLimit:
    table.only("count", "per", "channel")
    return RateLimit(table.count("count", None, _MOST), table.span("per", None, _LONGEST), table.channel())
