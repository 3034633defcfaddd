"""SQL of what people did about posts: the posts of a campaign, and the leads that networks name."""
# ruff: noqa: S608 - the pieces put together here are our own names, never input

from collections.abc import Collection
from datetime import datetime

from sqlalchemy import Row, bindparam, text
from sqlalchemy.orm import Session

from nexus_marketing.db.queries.rowsets import as_rows, rowset
from nexus_marketing.db.tenancy import run
from nexus_marketing.db.types import Json, UtcDateTime

#: Of one campaign, the newest first.
MOST_POSTS = 100

_POSTS = """
SELECT m.id AS send_id, m.channel, m.sender, d.provider_code AS code
FROM marketing_sends m CROSS JOIN marketing_deliveries d
WHERE m.tenant_id = :tenant_id AND m.campaign_id = :campaign_id AND m.created_at > :since AND m.channel IN :channels
  AND d.tenant_id = :tenant_id AND d.send_id = m.id AND d.state = 'accepted' AND d.provider_code IS NOT NULL
ORDER BY m.id DESC LIMIT :most
"""


def posts_of(
    session: Session, campaign_id: int, channels: Collection[str], since: datetime
) -> list[Row[tuple[object]]]:
    """(send_id, channel, sender, code) of what a campaign has posted since then by these channels."""
    statement = (
        text(_POSTS)
        .bindparams(bindparam("channels", expanding=True), bindparam("since", type_=UtcDateTime()))
        .columns(sender=Json)
    )
    values = {"campaign_id": campaign_id, "channels": sorted(channels), "since": since, "most": MOST_POSTS}
    return list(run(session, statement, values, writes=False))


def leads_by_handle(session: Session, field: str, handles: Collection[str]) -> dict[str, int]:
    """Ids of leads whose metadata has one of these handles under a name, in small letters and without the first ``@``.

    Reads every lead of the tenant: for a question that a person asks. Of several with one handle it is the oldest.
    """
    if not handles:
        return {}
    handle = "lower(ltrim(l.metadata ->> :field, '@'))"
    statement = (
        f"SELECT {handle} AS handle, min(l.id) AS id FROM marketing_leads l"
        " WHERE l.tenant_id = :tenant_id AND l.gone_at IS NULL AND l.metadata ->> :field IS NOT NULL"
        f" AND {handle} IN (SELECT s.handle FROM {rowset(session, {'handle': 'text'})}) GROUP BY 1"
    )
    rows = as_rows([{"handle": each} for each in sorted(handles)])
    return {row.handle: row.id for row in run(session, statement, {"field": field, "rows": rows}, writes=False)}
