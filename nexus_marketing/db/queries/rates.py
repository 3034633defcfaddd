"""SQL of send rates: grants in a table, decided under one lock of the tenant, so that all its workers share a limit exactly."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any, NamedTuple

from sqlalchemy import Engine
from sqlalchemy.orm import Session

from nexus_marketing.core.pacing.rates import Full, Given, Grant, Own, RateLimit, applying, grant, merged
from nexus_marketing.db.models import SendGrant
from nexus_marketing.db.queries.locks import wait_alone
from nexus_marketing.db.queries.rowsets import as_ids, ids_of
from nexus_marketing.db.tenancy import append, open_session, run
from nexus_marketing.db.types import read_moment

#: Grants that are read before those that lie together are put together.
_MANY = 100
_GIVEN = """
SELECT id, at, granted, sender, domain, account FROM marketing_send_grants
WHERE tenant_id = :tenant_id AND channel = :channel AND send_id IS NULL ORDER BY at, id
"""
_GIVEN_TO_SEND = """
SELECT id, at, granted, sender, domain, account FROM marketing_send_grants
WHERE tenant_id = :tenant_id AND channel = :channel AND send_id = :send_id ORDER BY at, id
"""
#: No window reaches back so far.
_LONGEST = timedelta(days=32)
#: No window of a send that ended reaches back so far.
_FORGET_SENDS = """
DELETE FROM marketing_send_grants
WHERE tenant_id = :tenant_id AND channel = :channel AND send_id IS NOT NULL AND at < nexus_after(-32 * 86400)
"""
_FORGET = "DELETE FROM marketing_send_grants WHERE tenant_id = :tenant_id AND id IN ({ids})"


class Asker(NamedTuple):
    """Who asks for grants: its messages leave by this channel, from this address, by this account."""

    tenant_id: int
    channel: str
    sender: str | None
    is_marketing: bool
    account: int | None = None
    #: Needed where the send has rates of its own.
    send_id: int | None = None


def take_grant(
    engine: Engine,
    asker: Asker,
    limits: Sequence[RateLimit],
    wanted: Sequence[str | None],
    own_limits: Sequence[RateLimit] = (),
) -> Grant:
    """Ask for messages now, in a transaction of its own; what is granted is written down.

    Args:
        engine: of the worker.
        asker: for whom.
        limits: of the channel, those of other senders too: what these count must not be forgotten. Grants of accounts
            whose limits are not among them (they are off, or for another sender) are kept in any case.
        wanted: for each message the domain of its address where a limit names that, else nothing.
        own_limits: of the asker's send.
    """
    with open_session(engine, tenant_id=asker.tenant_id) as session, session.begin():
        wait_alone(session, f"rates {asker.channel}")
        now = _now(session)
        book, own_book = _Book(session, asker.channel), _Book(session, asker.channel, asker.send_id)
        given = book.given(now, limits) if limits else []
        own = Own(own_limits, own_book.given(now, own_limits)) if own_limits else None
        applied = applying(limits, asker.sender, asker.account)
        found = grant(applied, given, wanted, now, is_marketing=asker.is_marketing, own=own)
        if limits:
            for domain, count in found.leaving.items():
                book.remember(Given(now, count, asker.sender, domain, asker.account))
        if own is not None and found.count:
            if not own.given:
                run(session, _FORGET_SENDS, {"channel": asker.channel}, writes=True)
            own_book.remember(Given(now, found.count))
        return found


def used_up(
    engine: Engine, asker: Asker, limits: Sequence[RateLimit], own_limits: Sequence[RateLimit] = ()
) -> Sequence[Full]:
    """Which limits have no room just now, without asking for any: many may wait for the moment at which one has some again.

    Args: see :func:`take_grant`.
    """
    with open_session(engine, tenant_id=asker.tenant_id, mode="read") as session:
        now = _now(session)
        given = [each for _, each in _Book(session, asker.channel).rows()] if limits else []
        own = None
        if own_limits:
            own = Own(own_limits, [each for _, each in _Book(session, asker.channel, asker.send_id).rows()])
        applied = applying(limits, asker.sender, asker.account)
        return grant(applied, given, (), now, is_marketing=asker.is_marketing, own=own).full


def _now(session: Session) -> datetime:
    return read_moment(run(session, "SELECT nexus_now() WHERE :tenant_id IS NOT NULL", writes=False).scalar_one())


class _Book(NamedTuple):
    """What was granted by a channel: to all, or (counted apart) to one send."""

    session: Session
    channel: str
    send_id: int | None = None

    def remember(self, each: Given) -> None:
        """Write it down."""
        values = {
            "at": each.at,
            "granted": each.count,
            "sender": each.sender,
            "domain": each.domain,
            "account": each.account,
        }
        append(self.session, SendGrant, channel=self.channel, send_id=self.send_id, **values)

    def rows(self) -> list[tuple[int, Given]]:
        """All that is written down, oldest first, with the id of each row."""
        values: dict[str, Any] = {"channel": self.channel}
        if self.send_id is not None:
            values["send_id"] = self.send_id
        statement = _GIVEN if self.send_id is None else _GIVEN_TO_SEND
        return [
            (row.id, Given(read_moment(row.at), row.granted, row.sender, row.domain, row.account))
            for row in run(self.session, statement, values, writes=False)
        ]

    def given(self, now: datetime, limits: Sequence[RateLimit]) -> list[Given]:
        """The grants that count; the others are forgotten, old ones put together."""
        session, asked = self.session, {None, *(limit.account for limit in limits)}
        rows = self.rows()
        oldest = now - max(limit.reach for limit in limits)
        kept = {id_ for id_, each in rows if each.at > (oldest if each.account in asked else now - _LONGEST)}
        live = [(id_, each) for id_, each in rows if id_ in kept]
        gone = [id_ for id_, _ in rows if id_ not in kept]
        if len(live) > _MANY:
            together = merged([each for _, each in live], limits, now)
            if len(together) < len(live) // 2:
                gone += [id_ for id_, _ in live]
                for each in together:
                    self.remember(each)
        if gone:
            run(session, _FORGET.format(ids=ids_of(session)), {"ids": as_ids(gone)}, writes=True)
        return [each for _, each in live]
