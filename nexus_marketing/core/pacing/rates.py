"""How fast may be sent: exact sliding windows over grants (BEHAVIOUR.md 5.2, Rate control).

A message may leave with a grant of every limit that it falls under: those of its channel, of its sender, of the domain of its
address and of its send. Grants are remembered with their moment; as many are given as keep every interval of the window's length at the limit or
below. A grant is used within a short *slack*, by which the window is made longer: what left late still lies inside.
A server that stalls in the middle of a window may be handed its rest later than that: at most the two windows that a worker
has open.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Any, Final, NamedTuple

from nexus_marketing.core.pacing.tables import Table, checked_tables

_LONGEST: Final = timedelta(days=31)
_MOST: Final = 1_000_000_000
_SLACK: Final = timedelta(seconds=1)
#: What marketing leaves of every limit to messages that somebody waits for.
RESERVED: Final = 0.1
#: Into so many pieces a window is told apart: what was granted within one of them is remembered as one.
_PIECES: Final = 100
_EPOCH: Final = datetime(2020, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class RateLimit:
    """At most ``count`` messages in any interval of ``per``, on one channel or (``None``) on each of them.

    With an ``account`` only messages by that channel account count, with a ``sender`` only those from that address, with
    ``domains`` only those to addresses of one of them.
    """

    count: int
    per: timedelta
    channel: str | None = None
    sender: str | None = None
    domains: frozenset[str] = frozenset()
    account: int | None = None

    @property
    def reach(self) -> timedelta:
        """How far back grants count: the window and the slack, a tenth of it up to a second."""
        return self.per + min(_SLACK, self.per / 10)

    def most(self, *, is_marketing: bool) -> int:
        """How many of a kind of messages a window may hold."""
        return max(1, int(self.count * (1 - RESERVED))) if is_marketing else self.count

    def counts(self, sender: str | None, domain: str | None, account: int | None = None) -> bool:
        """Whether a message from this sender to this domain by this account falls under it."""
        return (
            self.sender in (None, sender)
            and self.account in (None, account)
            and (not self.domains or domain in self.domains)
        )


@dataclass(frozen=True, slots=True)
class Given:
    """So many were granted then: ``domain`` only where a limit names it."""

    at: datetime
    count: int
    sender: str | None = None
    domain: str | None = None
    account: int | None = None


class Full(NamedTuple):
    """A limit that has no room, and when it has some again; ``is_own`` where it is the send's alone."""

    limit: RateLimit
    wait: timedelta
    is_own: bool = False


@dataclass(frozen=True, slots=True)
class Grant:
    """What was decided of the first ``looked`` of the wanted messages: they leave, but for those ``waiting`` by position.

    ``retry_after`` says when to ask again where not even the first could be decided, ``is_own`` that it was the send's own
    rate that left no room: other sends may go on.
    """

    looked: int
    #: Those whose domain has no room, and which limit has none for the longest.
    waiting: Mapping[int, Full] = field(default_factory=dict)
    #: By domain: what is to be remembered.
    leaving: Mapping[str | None, int] = field(default_factory=dict)
    retry_after: timedelta = timedelta()
    is_own: bool = False
    #: Every limit that has no room left after this.
    full: Sequence[Full] = field(default=(), compare=False)

    @property
    def count(self) -> int:
        """How many may leave now."""
        return self.looked - len(self.waiting)


class Own(NamedTuple):
    """The limits of one send, and what was granted to it before, oldest first."""

    limits: Sequence[RateLimit]
    given: Sequence[Given] = ()


@dataclass(slots=True)
class _Meter:
    """What is left of one limit."""

    limit: RateLimit
    recent: list[Given]
    free: int
    now: datetime
    is_own: bool = False

    def wait(self) -> timedelta:
        """Until one more is free: enough of the oldest grants are out of the window."""
        needed = 1 - self.free
        for each in self.recent:
            needed -= each.count
            if needed <= 0:
                return each.at + self.limit.reach - self.now
        return self.limit.reach

    def full(self) -> Full:
        """As somebody is told who found no room."""
        return Full(self.limit, self.wait(), self.is_own)


def grant(
    limits: Iterable[RateLimit],
    given: Sequence[Given],
    wanted: Sequence[str | None],
    now: datetime,
    *,
    is_marketing: bool,
    own: "Own | None" = None,
) -> Grant:
    """Which of the wanted messages may leave now; every limit must agree.

    A domain that has no room keeps only its own messages waiting; any other limit ends the look.

    Args:
        limits: those of the channel and the sender.
        given: grants of before, oldest first; those that no window reaches may be left out.
        wanted: for each message that is ready the domain of its address as :func:`told_apart` says, or nothing.
        now: the moment.
        is_marketing: leaves :data:`RESERVED` of each limit to others.
        own: the limits of the send itself, which it shares with nobody.
    """
    meters = [_meter(limit, given, now, is_marketing=is_marketing) for limit in limits]
    if own is not None:
        meters += [replace(_meter(limit, own.given, now, is_marketing=False), is_own=True) for limit in own.limits]
    common = [meter for meter in meters if not meter.limit.domains]
    looked = max(0, min([len(wanted), *(meter.free for meter in common)]))
    special = [meter for meter in meters if meter.limit.domains]
    if not special:
        return _ended(looked, {}, Counter({None: looked}), common, special)
    waiting: dict[int, Full] = {}
    leaving: Counter[str | None] = Counter()
    room, position = looked, 0
    # A message that waits takes none of the common room: somebody behind it may have it.
    while position < len(wanted) and (room or not common):
        domain = wanted[position]
        concerned = [meter for meter in special if domain in meter.limit.domains] if domain is not None else ()
        full = [meter for meter in concerned if meter.free <= 0]
        if full:
            waiting[position] = max((meter.full() for meter in full), key=_waits)
        else:
            for meter in concerned:
                meter.free -= 1
            leaving[domain] += 1
            room -= 1
        position += 1
    return _ended(position, waiting, leaving, common, special)


def _meter(limit: RateLimit, given: Sequence[Given], now: datetime, *, is_marketing: bool) -> _Meter:
    oldest = now - limit.reach
    recent = [each for each in given if each.at > oldest and limit.counts(each.sender, each.domain, each.account)]
    return _Meter(limit, recent, limit.most(is_marketing=is_marketing) - sum(each.count for each in recent), now)


def _ended(
    looked: int,
    waiting: dict[int, Full],
    leaving: Counter[str | None],
    common: Sequence[_Meter],
    special: Sequence[_Meter],
) -> Grant:
    for meter in common:
        meter.free -= leaving.total()
    full = [meter.full() for meter in (*common, *special) if meter.free <= 0]
    if looked:
        return Grant(looked, waiting, {domain: count for domain, count in leaving.items() if count}, full=full)
    stopped = [each for each in full if not each.limit.domains]
    if not stopped:
        return Grant(0, full=full)
    longest = max(stopped, key=_waits)
    return Grant(0, retry_after=longest.wait, is_own=longest.is_own, full=full)


def _waits(full: Full) -> timedelta:
    return full.wait


def merged(given: Sequence[Given], limits: Sequence[RateLimit], now: datetime) -> list[Given]:
    """The same grants, those that lie together as one at the moment of the last: never counted for a shorter time.

    What lies together is a hundredth of the shortest window that still counts them: a day at any speed is a hundred
    grants to read, and nobody waits longer than by that hundredth.
    """
    reaches = sorted(limit.reach for limit in limits)
    found: dict[tuple[Any, ...], Given] = {}
    for each in given:
        width = next((reach for reach in reaches if each.at > now - reach), reaches[-1]) / _PIECES
        key = (width, (each.at - _EPOCH) // width, each.sender, each.domain, each.account)
        known = found.get(key, replace(each, count=0))
        found[key] = replace(each, at=max(known.at, each.at), count=known.count + each.count)
    return sorted(found.values(), key=lambda each: each.at)


def usable_seconds(limits: Iterable[RateLimit]) -> float:
    """For how long messages may be granted ahead: half the slack within which they have to leave."""
    return min((limit.reach - limit.per).total_seconds() for limit in limits) / 2


def rates_of(settings: Mapping[str, Any], channel: str) -> tuple[RateLimit, ...]:
    """The limits of a tenant for a channel, from its stored settings: those of all its senders."""
    limits = (_rate(Table(document)) for document in settings.get("send_rates", ()))
    return tuple(limit for limit in limits if limit.channel in (None, channel))


def own_rates_of(documents: Iterable[Mapping[str, Any]] | None) -> tuple[RateLimit, ...]:
    """The limits of each send of a campaign, from what is stored with it."""
    return tuple(_own_rate(Table(document)) for document in documents or ())


def applying(limits: Iterable[RateLimit], sender: str | None, account: int | None = None) -> list[RateLimit]:
    """Those of them that messages from this address by this account fall under."""
    return [limit for limit in limits if limit.sender in (None, sender) and limit.account in (None, account)]


def named_domains(limits: Iterable[RateLimit]) -> frozenset[str]:
    """Domains that a limit tells apart."""
    return frozenset[str]().union(*(limit.domains for limit in limits))


@lru_cache(maxsize=1_000)
def told_apart(limits: tuple[RateLimit, ...]) -> Mapping[str, str]:
    """For each domain that a limit names the one that stands for all that fall under the same limits.

    Grants are remembered under that one: a limit for a hundred domains is as small to read as one for a single domain.
    """
    found: dict[str, str] = {}
    first: dict[tuple[bool, ...], str] = {}
    for domain in sorted(named_domains(limits)):
        found[domain] = first.setdefault(tuple(domain in limit.domains for limit in limits), domain)
    return found


def as_sender(address: str | None) -> str | None:
    """A sender's address as limits and grants know it."""
    return address.strip().lower() if address else None


def check_rates(value: object) -> list[dict[str, Any]]:
    """Send rates as a tenant writes them down, in the form in which they are stored.

    Each is a table: ``count`` (1 to a billion), ``per`` (a span up to 31 days such as ``"1 second"`` or ``"1 day"``), and, if
    wanted, ``channel``, ``sender`` (an e-mail address that messages come from) and ``domains`` (of the addresses that they go to;
    one limit for all of them together).

    Raises:
        ValidationError: every fault with its place.
    """
    return checked_tables(value, "send_rates", _rate)


def check_account_rates(value: object) -> list[dict[str, Any]]:
    """What a channel account may carry at most, in the form in which it is stored: tables of ``count``, ``per``, ``domains``.

    Raises:
        ValidationError: every fault with its place.
    """
    return checked_tables(value, "rates", _account_rate)


def check_own_rates(value: object) -> list[dict[str, Any]]:
    """The rates of a campaign, in the form in which they are stored: tables of ``count`` and ``per``, for each of its sends.

    Raises:
        ValidationError: every fault with its place.
    """
    return checked_tables(value, "send_rates", _own_rate)


def _own_rate(table: Table) -> RateLimit:
    table.only("count", "per")
    return RateLimit(table.count("count", None, _MOST), table.span("per", None, _LONGEST))


def account_limits(rates: Iterable[Mapping[str, Any]], account: int) -> list[RateLimit]:
    """The limits of an account from its stored rates."""
    return [replace(_account_rate(Table(document)), account=account) for document in rates]


def _account_rate(table: Table) -> RateLimit:
    table.only("count", "per", "domains")
    domains = table.domains("domains")
    return RateLimit(table.count("count", None, _MOST), table.span("per", None, _LONGEST), domains=domains)


def _rate(table: Table) -> RateLimit:
    table.only("count", "per", "channel", "sender", "domains")
    return RateLimit(
        table.count("count", None, _MOST),
        table.span("per", None, _LONGEST),
        table.channel(),
        table.sender(),
        table.domains("domains"),
    )
