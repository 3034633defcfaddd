"""Whose turn it is to send: transactional messages first, then tenant after tenant, and of each send after send.

However many sends a tenant has, it gets one piece in each round: with T tenants nobody waits for more than T - 1 pieces of
others, and a send of one that has S of them for S rounds at most (deficit round robin with pieces of one size, BEHAVIOUR.md 5.2).
A transactional send waits for the piece that is being sent, and for others of its kind.

>>> turns = Turns()
>>> waiting = [WaitingSend(1, 1, "email", "marketing"), WaitingSend(1, 2, "email", "marketing")]
>>> waiting.append(WaitingSend(2, 3, "email", "marketing"))
>>> [turns.next(waiting).send_id for _ in range(6)]
[1, 3, 2, 3, 1, 3]
"""

from collections.abc import Collection, Iterable
from typing import NamedTuple

from nexus_marketing.core.campaigns import MessageClass

Lane = tuple[int, str, str]
"""Whose rate is used up: tenant, channel, message class."""


class WaitingSend(NamedTuple):
    """A send that has a piece to be sent."""

    tenant_id: int
    send_id: int
    channel: str
    message_class: str
    #: What its pieces wait for: domains whose rate was used up, or (``None``) nothing of the kind.
    groups: frozenset[str | None] = frozenset({None})

    @property
    def key(self) -> tuple[int, int]:
        """What names it."""
        return (self.tenant_id, self.send_id)

    @property
    def lane(self) -> Lane:
        """Sends of one lane share their rates."""
        return (self.tenant_id, self.channel, self.message_class)

    @property
    def is_transactional(self) -> bool:
        """Whether somebody waits for it."""
        return self.message_class == MessageClass.TRANSACTIONAL


class Turns:
    """Remembers who was served last, so that the next goes on from there; one for each worker."""

    def __init__(self) -> None:
        self._tenants = {True: 0, False: 0}
        self._sends: dict[tuple[int, bool], int] = {}

    def next(self, waiting: Collection[WaitingSend]) -> WaitingSend:
        """Who is served now, of those who wait; there must be somebody."""
        first = [each for each in waiting if each.is_transactional]
        urgent, chosen = bool(first), first or waiting
        tenant = _following({each.tenant_id for each in chosen}, self._tenants[urgent])
        own = {each.send_id: each for each in chosen if each.tenant_id == tenant}
        send = _following(own, self._sends.get((tenant, urgent), 0))
        self._tenants[urgent] = tenant
        self._sends[tenant, urgent] = send
        return own[send]

    def keep(self, tenants: Collection[int]) -> None:
        """Forget tenants that have no work."""
        self._sends = {key: send for key, send in self._sends.items() if key[0] in tenants}


def _following(numbers: Iterable[int], last: int) -> int:
    """The next number after the last one, or the smallest where there is none."""
    ordered = sorted(numbers)
    return next((each for each in ordered if each > last), ordered[0])
