"""SQL of what people did about posts: the posts of a campaign, what was seen of them, and the leads that networks name."""

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from typing import Any, Final

from sqlalchemy import Row, bindparam, text
from sqlalchemy.orm import Session

from nexus_marketing.core.deliveries import DeliveryState
from nexus_marketing.db.queries.rowsets import as_rows, is_postgresql, rowset
from nexus_marketing.db.tenancy import run
from nexus_marketing.db.types import Json, UtcDateTime

#: Of one campaign, the newest first.
MOST_POSTS: Final = 100
#: Networks whose handles have an index on PostgreSQL (``ix_marketing_leads_…_handle``): its expression names the field, and
#: what is asked has to be the same. For another name every lead of the tenant is read.
INDEXED_HANDLES: Final = ("mastodon", "bluesky")

# What was taken back is watched no more. Once a post was seen its name is known, and no ledger is looked through for it.
_POSTS = """
SELECT m.id AS send_id, m.channel, m.sender, m.created_at, m.finished_at, m.reactions,
  coalesce(m.reactions ->> 'code', (
    SELECT d.provider_code FROM marketing_deliveries d
    WHERE d.tenant_id = :tenant_id AND d.send_id = m.id AND d.state IN :states AND d.provider_code IS NOT NULL
    ORDER BY d.seq LIMIT 1)) AS code
FROM marketing_sends m
WHERE m.tenant_id = :tenant_id AND m.campaign_id = :campaign_id AND m.channel IN :channels
  AND NOT EXISTS (SELECT 1 FROM marketing_actions a
    WHERE a.tenant_id = :tenant_id AND a.key = 'undo:send:' || m.id AND a.state = 'done')
ORDER BY m.id DESC LIMIT :most
"""
_STATEMENT = (
    text(_POSTS)
    .bindparams(bindparam("channels", expanding=True), bindparam("states", expanding=True))
    .columns(sender=Json, reactions=Json, created_at=UtcDateTime(), finished_at=UtcDateTime())
)
_STATES: Final = [str(DeliveryState.ACCEPTED), str(DeliveryState.DELIVERED)]


def posts_of(session: Session, campaign_id: int, channels: Collection[str]) -> Sequence[Row[Any]]:
    """(send_id, channel, sender, created_at, finished_at, reactions, code) of a campaign's posts by these channels.

    ``code`` is nothing where it has not been posted; ``reactions`` is what :func:`note_seen` wrote.
    """
    if not channels:
        return []
    values = {"campaign_id": campaign_id, "channels": sorted(channels), "states": _STATES, "most": MOST_POSTS}
    return run(session, _STATEMENT, values, writes=False).all()


def note_seen(session: Session, send_id: int, document: Mapping[str, Any]) -> None:
    """Write down what was seen of a post."""
    statement = "UPDATE marketing_sends SET reactions = :document WHERE tenant_id = :tenant_id AND id = :send_id"
    bound = text(statement).bindparams(bindparam("document", type_=Json))
    run(session, bound, {"send_id": send_id, "document": dict(document)}, writes=True)


def leads_by_handle(session: Session, field: str, handles: Collection[str]) -> dict[str, int]:
    """Ids of leads whose metadata has one of these handles under a name, in small letters and without the first ``@``.

    Of several with one handle it is the oldest.
    """
    if not handles:
        return {}
    rows = as_rows([{"handle": each} for each in sorted(handles)])
    source = rowset(session, {"handle": "text"})
    if field in INDEXED_HANDLES and is_postgresql(session):
        statement, values = _BY_INDEX.format(handle=_handle(f"'{field}'"), source=source), {"rows": rows}
    else:
        statement, values = _BY_READING.format(handle=_handle(":field"), source=source), {"rows": rows, "field": field}
    return {row.handle: row.id for row in run(session, statement, values, writes=False)}


# Handle by handle, and kept so by OFFSET: the planner knows nothing of how few leads have any, and would read them all.
_BY_INDEX = """
SELECT s.handle, min(l.id) AS id FROM {source} CROSS JOIN LATERAL (
  SELECT l.id FROM marketing_leads l WHERE l.tenant_id = :tenant_id AND l.gone_at IS NULL AND {handle} = s.handle
  OFFSET 0) AS l GROUP BY s.handle
"""
_BY_READING = """
SELECT {handle} AS handle, min(l.id) AS id FROM marketing_leads l
WHERE l.tenant_id = :tenant_id AND l.gone_at IS NULL AND {handle} IN (SELECT s.handle FROM {source}) GROUP BY 1
"""


def _handle(field: str) -> str:
    return f"lower(ltrim(l.metadata ->> {field}, '@'))"


def last_seen(reactions: Mapping[str, Any] | None) -> datetime | None:
    """When a post was looked at last, as :func:`note_seen` wrote it."""
    return None if reactions is None else datetime.fromisoformat(reactions["seen_at"])
