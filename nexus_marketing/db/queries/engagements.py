"""SQL of engagements: claiming hits, idempotent ids, counting."""

from collections.abc import Mapping, Sequence
from datetime import date
from typing import Any

from sqlalchemy import Row, bindparam, text
from sqlalchemy.orm import Session

from nexus_marketing.db.tenancy import run, run_for_all


def tenants_with_settled_hits(session: Session, settling_seconds: float) -> list[int]:
    """Tenants that have hits old enough to be judged."""
    statement = "SELECT DISTINCT tenant_id FROM marketing_hits WHERE at < nexus_after(:age)"
    return list(run_for_all(session, statement, {"age": -settling_seconds}, writes=False).scalars())


_TAKE = """
DELETE FROM marketing_hits WHERE tenant_id = :tenant_id AND id IN (
    SELECT id FROM marketing_hits WHERE tenant_id = :tenant_id AND at < nexus_after(:age)
    ORDER BY at, id LIMIT 2000{lock})
RETURNING id, at, type, send_id, seq, lead_id, link, machine_hint
"""


def take_settled_hits(session: Session, settling_seconds: float) -> list[Row[Any]]:
    """Take up to 2,000 settled hits out of the queue; they are gone when the transaction commits."""
    lock = " FOR UPDATE SKIP LOCKED" if session.get_bind().dialect.name == "postgresql" else ""
    return list(run(session, _TAKE.format(lock=lock), {"age": -settling_seconds}, writes=True).all())


_SETTLED_AT = text(
    "SELECT seq, settled_at FROM marketing_deliveries"
    " WHERE tenant_id = :tenant_id AND send_id = :send_id AND seq IN :seqs"
).bindparams(bindparam("seqs", expanding=True))


def handed_over_at(session: Session, send_id: int, seqs: Sequence[int]) -> dict[int, Any]:
    """When each recipient's message was answered."""
    found = run(session, _SETTLED_AT, {"send_id": send_id, "seqs": sorted(set(seqs))}, writes=False)
    return {row.seq: row.settled_at for row in found}


_FIRST = """
INSERT INTO marketing_recipient_engagements (tenant_id, send_id, seq, type, verdict, first_at, hits)
VALUES (:tenant_id, :send_id, :seq, :type, :verdict, :at, 1)
ON CONFLICT (tenant_id, send_id, seq, type) DO UPDATE SET
    hits = marketing_recipient_engagements.hits + 1,
    verdict = CASE WHEN excluded.verdict = 'human' OR marketing_recipient_engagements.verdict = 'human' THEN 'human'
                   WHEN excluded.verdict = 'unknown' OR marketing_recipient_engagements.verdict = 'unknown'
                   THEN 'unknown' ELSE 'machine' END
"""


def count_recipients(session: Session, rows: Sequence[Mapping[str, Any]]) -> None:
    """Remember the first engagement per recipient and type; the most human verdict wins."""
    ordered = sorted(rows, key=lambda row: (row["send_id"], row["seq"], row["type"]))
    if ordered:
        run(session, _FIRST, ordered, writes=True)


def claim_event_id(session: Session, event_id: str, today: date) -> bool:
    """Whether this event id is new for the tenant; repeats are refused as long as ids are kept."""
    values = {"event_id": event_id, "today": today.isoformat()}
    seen = run(
        session,
        "SELECT 1 FROM marketing_event_seen WHERE tenant_id = :tenant_id AND event_id = :event_id",
        {"event_id": event_id},
        writes=False,
    ).first()
    if seen is not None:
        return False
    inserted = run(
        session,
        "INSERT INTO marketing_event_seen (tenant_id, event_id, received_on) VALUES (:tenant_id, :event_id, :today)"
        " ON CONFLICT DO NOTHING",
        values,
        writes=True,
    )
    return bool(inserted.rowcount)  # type: ignore[attr-defined]


def ledger_counts(session: Session, send_ids: Sequence[int]) -> list[Row[Any]]:
    """(send_id, state, reason, n): what a send's numbers are derived from."""
    found: list[Row[Any]] = []
    for send_id in send_ids:
        found += run(
            session,
            "SELECT send_id, state, CASE WHEN state = 'skipped' THEN reason END AS reason, count(*) AS n"
            " FROM marketing_deliveries WHERE tenant_id = :tenant_id AND send_id = :send_id GROUP BY 1, 2, 3",
            {"send_id": send_id},
            writes=False,
        ).all()
    return found


def engagement_counts(session: Session, send_id: int) -> list[Row[Any]]:
    """(type, verdict, recipients, hits) of a send."""
    return list(
        run(
            session,
            "SELECT type, verdict, count(*) AS recipients, sum(hits) AS hits FROM marketing_recipient_engagements"
            " WHERE tenant_id = :tenant_id AND send_id = :send_id GROUP BY type, verdict",
            {"send_id": send_id},
            writes=False,
        ).all()
    )


def unsubscribe_count(session: Session, campaign_id: int) -> int:
    """Unsubscribes that a campaign's messages led to."""
    return int(
        run(
            session,
            "SELECT count(*) FROM marketing_engagements"
            " WHERE tenant_id = :tenant_id AND campaign_id = :campaign_id AND type = 'unsubscribed'",
            {"campaign_id": campaign_id},
            writes=False,
        ).scalar_one()
    )
