"""SQL of send rates: grants in a table, decided under one lock of the tenant, so that all its workers share a limit exactly."""

from collections.abc import Sequence
from datetime import datetime
from typing import NamedTuple

from sqlalchemy import Engine
from sqlalchemy.orm import Session

from nexus_marketing.core.pacing.rates import Given, Grant, RateLimit, applying, grant, merged
from nexus_marketing.db.models import SendGrant
from nexus_marketing.db.queries.locks import wait_alone
from nexus_marketing.db.queries.rowsets import as_ids, ids_of
from nexus_marketing.db.tenancy import append, open_session, run
from nexus_marketing.db.types import read_moment

#: Grants that are read before those that lie together are put together.
_MANY = 100
_GIVEN = """
SELECT id, at, granted, sender, domain, account FROM marketing_send_grants
WHERE tenant_id = :tenant_id AND channel = :channel ORDER BY at, id
"""
_FORGET = "DELETE FROM marketing_send_grants WHERE tenant_id = :tenant_id AND id IN ({ids})"


class Asker(NamedTuple):
    """Who asks for grants: its messages leave by this channel, from this address, by this account."""

    tenant_id: int
    channel: str
    sender: str | None
    is_marketing: bool
    account: int | None = None


def take_grant(engine: Engine, asker: Asker, limits: Sequence[RateLimit], wanted: Sequence[str | None]) -> Grant:
    """Ask for messages now, in a transaction of its own; what is granted is written down.

    Args:
        engine: of the worker.
        asker: for whom.
        limits: of the channel, those of other senders and accounts too: what these count must not be forgotten.
        wanted: for each message the domain of its address where a limit names that, else nothing.
    """
    with open_session(engine, tenant_id=asker.tenant_id) as session, session.begin():
        wait_alone(session, f"rates {asker.channel}")
        now = read_moment(run(session, "SELECT nexus_now() WHERE :tenant_id IS NOT NULL", writes=False).scalar_one())
        given = _given(session, asker.channel, now, limits)
        own = applying(limits, asker.sender, asker.account)
        found = grant(own, given, wanted, now, is_marketing=asker.is_marketing)
        for domain, count in found.leaving.items():
            _remember(session, asker.channel, Given(now, count, asker.sender, domain, asker.account))
        return found


def _remember(session: Session, channel: str, each: Given) -> None:
    values = {
        "at": each.at,
        "granted": each.count,
        "sender": each.sender,
        "domain": each.domain,
        "account": each.account,
    }
    append(session, SendGrant, channel=channel, **values)


def _given(session: Session, channel: str, now: datetime, limits: Sequence[RateLimit]) -> list[Given]:
    """The grants that count; the others are forgotten, old ones put together."""
    rows = [
        (row.id, Given(read_moment(row.at), row.granted, row.sender, row.domain, row.account))
        for row in run(session, _GIVEN, {"channel": channel}, writes=False)
    ]
    oldest = now - max(limit.reach for limit in limits)
    live = [(id_, each) for id_, each in rows if each.at > oldest]
    gone = [id_ for id_, each in rows if each.at <= oldest]
    if len(live) > _MANY:
        together = merged([each for _, each in live], limits, now)
        if len(together) < len(live) // 2:
            gone += [id_ for id_, _ in live]
            for each in together:
                _remember(session, channel, each)
    if gone:
        run(session, _FORGET.format(ids=ids_of(session)), {"ids": as_ids(gone)}, writes=True)
    return [each for _, each in live]
