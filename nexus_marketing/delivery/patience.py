"""What a worker remembers from chunk to chunk of where there is no room: which limits are used up, which domains are slow.

It is the worker's own and says only that asking is no use yet; who asks is decided for everybody alike in the database.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final

from nexus_marketing.core.pacing.cooling import Cooling
from nexus_marketing.core.pacing.rates import Full, RateLimit, applying
from nexus_marketing.db.queries.rates import Asker

#: A limit that is used up is looked at again by then: somebody may have raised it.
LONGEST_SECONDS: Final = 30.0
#: Where places become free one by one, this part of a window lies between two looks at it at least: what a claim costs is
#: spread over some messages, and hardly a place stays empty.
_BETWEEN_LOOKS: Final = 0.02
#: So long it is known that there was no room, where nobody asked since.
_REMEMBERED_SECONDS: Final = 900.0
Lane = tuple[int, str]
#: Of which lane and kind of messages, which limit, and of which send where it is its own.
_Key = tuple[Lane, bool, RateLimit, int | None]


@dataclass(slots=True)
class Patience:
    """Belongs to one worker thread; moments are seconds of its monotonic clock."""

    cooling: dict[Lane, Cooling] = field(default_factory=dict)
    _full: dict[_Key, float] = field(default_factory=dict)

    def learn(self, asker: Asker, full: Iterable[Full], now: float) -> None:
        """Of all limits that the asker's messages fall under these have no room."""
        self._full = {
            key: until
            for key, until in self._full.items()
            if until > now or (until > now - _REMEMBERED_SECONDS and not _asks(key, asker))
        }
        for limit, wait, is_own in full:
            seconds = max(wait.total_seconds(), limit.reach.total_seconds() * _BETWEEN_LOOKS)
            self._full[_key(asker, limit, is_own=is_own)] = now + min(seconds, LONGEST_SECONDS)

    def wait(
        self, asker: Asker, limits: Sequence[RateLimit], own: Sequence[RateLimit], group: str | None, now: float
    ) -> float:
        """For how many seconds it is no use to ask, for messages that wait for a domain, or (``None``) for any.

        Args:
            asker: who would.
            limits: of the channel; those of others may be among them.
            own: those of the asker's send alone.
            group: the domain.
            now: the moment.
        """
        return max(0.0, max(self._known(asker, limits, own, group), default=now) - now)

    def was_full(
        self, asker: Asker, limits: Sequence[RateLimit], own: Sequence[RateLimit], group: str | None, now: float
    ) -> bool:
        """Whether there was no room a while ago: others may have taken what became free since.

        Args: see :meth:`wait`.
        """
        return any(until <= now for until in self._known(asker, limits, own, group))

    def _known(
        self, asker: Asker, limits: Sequence[RateLimit], own: Sequence[RateLimit], group: str | None
    ) -> list[float]:
        if not self._full:
            return []
        keys = [_key(asker, each) for each in concerning(limits, asker, group)]
        keys += [_key(asker, each, is_own=True) for each in own]
        return [self._full[key] for key in keys if key in self._full]

    def everybody_waits(self, lane: Lane, now: float, *, is_marketing: bool) -> float:
        """For how many seconds it is no use to ask for any message of a lane, whoever sends it and to whomever."""
        waits = [
            until - now
            for (of, kind, limit, send_id), until in self._full.items()
            if of == lane and kind is is_marketing and send_id is None
            if limit.sender is None and limit.account is None and not limit.domains
        ]
        return max(0.0, *waits) if waits else 0.0

    def full_groups(self, asker: Asker, limits: Sequence[RateLimit], groups: Iterable[str], now: float) -> set[str]:
        """Those of the domains that it is no use to ask for now."""
        if not self._full:
            return set()
        named = [each for each in applying(limits, asker.sender, asker.account) if each.domains]
        full = [each for each in named if self._full.get(_key(asker, each), now) > now]
        return {group for group in groups if any(group in each.domains for each in full)}


def concerning(limits: Iterable[RateLimit], asker: Asker, group: str | None) -> list[RateLimit]:
    """Those of the limits that messages which wait for a domain fall under, or (``None``) all messages."""
    found = applying(limits, asker.sender, asker.account)
    return [each for each in found if not each.domains or group in each.domains]


def _asks(key: _Key, asker: Asker) -> bool:
    """Whether the messages of an asker fall under a limit."""
    lane, is_marketing, limit, send_id = key
    is_theirs = (lane, is_marketing) == ((asker.tenant_id, asker.channel), asker.is_marketing)
    return is_theirs and send_id in (None, asker.send_id) and bool(applying([limit], asker.sender, asker.account))


def _key(asker: Asker, limit: RateLimit, *, is_own: bool = False) -> _Key:
    return (asker.tenant_id, asker.channel), asker.is_marketing, limit, asker.send_id if is_own else None
