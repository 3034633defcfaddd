"""SQL of send rates: grants in a table, decided under one lock of the tenant, so that all its workers share a limit exactly."""

from collections.abc import Sequence
from datetime import datetime

from sqlalchemy import Engine
from sqlalchemy.orm import Session

from nexus_marketing.core.pacing.rates import MERGE_AFTER, Given, Grant, RateLimit, grant, merged
from nexus_marketing.db.models import SendGrant
from nexus_marketing.db.queries.locks import wait_alone
from nexus_marketing.db.queries.rowsets import as_ids, ids_of
from nexus_marketing.db.tenancy import append, open_session, run
from nexus_marketing.db.types import read_moment

#: Grants that are read before those of a minute are put together.
_MANY = 200
_GIVEN = """
SELECT id, at, granted FROM marketing_send_grants WHERE tenant_id = :tenant_id AND channel = :channel ORDER BY at, id
"""
_FORGET = "DELETE FROM marketing_send_grants WHERE tenant_id = :tenant_id AND id IN ({ids})"


def take_grant(
    engine: Engine,
    tenant_id: int,
    channel: str,
    limits: Sequence[RateLimit],
    wanted: int,
    *,
    is_marketing: bool,
) -> Grant:
    """Ask for so many messages of a channel now, in a transaction of its own; what is granted is written down."""
    with open_session(engine, tenant_id=tenant_id) as session, session.begin():
        wait_alone(session, f"rates {channel}")
        now = read_moment(run(session, "SELECT nexus_now() WHERE :tenant_id IS NOT NULL", writes=False).scalar_one())
        given = _given(session, channel, now, limits)
        found = grant(limits, given, wanted, now, is_marketing=is_marketing)
        if found.count:
            append(session, SendGrant, channel=channel, at=now, granted=found.count)
        return found


def _given(session: Session, channel: str, now: datetime, limits: Sequence[RateLimit]) -> list[Given]:
    """The grants that count; the others are forgotten, old ones put together."""
    rows = [
        (row.id, Given(read_moment(row.at), row.granted))
        for row in run(session, _GIVEN, {"channel": channel}, writes=False)
    ]
    oldest = now - max(limit.reach for limit in limits)
    live = [(id_, each) for id_, each in rows if each.at > oldest]
    settled = [(id_, each) for id_, each in live if each.at <= now - MERGE_AFTER]
    together = merged([each for _, each in settled])
    gone = [id_ for id_, each in rows if each.at <= oldest]
    if len(live) > _MANY and len(together) < len(settled) // 2:
        gone += [id_ for id_, _ in settled]
        for each in together:
            append(session, SendGrant, channel=channel, at=each.at, granted=each.count)
    if gone:
        run(session, _FORGET.format(ids=ids_of(session)), {"ids": as_ids(gone)}, writes=True)
    return [each for _, each in live]
