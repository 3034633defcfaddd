"""SQL of engagements: claiming hits, judging them together with earlier ones, the ledger's numbers."""
# ruff: noqa: S608 - the pieces put together here are our own column names, never input

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import Row, bindparam, text
from sqlalchemy.orm import Session

from nexus_marketing.db.queries.queues import taking
from nexus_marketing.db.queries.rowsets import Values, as_rows, is_postgresql, of_tenant, rowset
from nexus_marketing.db.tenancy import run
from nexus_marketing.db.types import Json, to_text


def take_settled_hits(session: Session, settling_seconds: float) -> list[Row[Any]]:
    """Take up to 2,000 settled hits out of the queue; they are gone when the transaction commits."""
    columns = "id, at, type, send_id, seq, lead_id, link, machine_hint"
    statement = taking(session, "marketing_hits", columns, only="at < nexus_after(:age)", order="at, id")
    return list(run(session, statement, {"age": -settling_seconds, "piece": 2_000}, writes=True).all())


def take_public_events(session: Session, piece: int) -> list[Row[Any]]:
    """Take up to so many events of browsers out of the queue, in the order of their arrival."""
    taken = taking(session, "marketing_public_events", "id, received_at, machine_hint, body")
    statement = text(taken).columns(body=Json)
    return sorted(run(session, statement, {"piece": piece}, writes=True).all(), key=lambda row: int(row.id))


_SETTLED_AT = text(
    "SELECT seq, settled_at FROM marketing_deliveries"
    " WHERE tenant_id = :tenant_id AND send_id = :send_id AND seq IN :seqs"
).bindparams(bindparam("seqs", expanding=True))


def handed_over_at(session: Session, send_id: int, seqs: Sequence[int]) -> dict[int, Any]:
    """When each recipient's message was answered."""
    found = run(session, _SETTLED_AT, {"send_id": send_id, "seqs": sorted(set(seqs))}, writes=False)
    return {row.seq: row.settled_at for row in found}


_RECIPIENT = {"lead_id": "bigint", "send_id": "bigint", "seq": "bigint"}
_EARLIER = """
SELECT e.id, e.tracked_at AS at, e.type, e.send_id, e.seq, e.lead_id, e.campaign_id, e.link, e.machine_hint, e.verdict
FROM {recipients} CROSS JOIN marketing_engagements e
WHERE e.tenant_id = :tenant_id AND e.lead_id = s.lead_id AND e.tracked_at >= {since} AND e.tracked_at <= {until}
AND e.send_id = s.send_id AND e.seq = s.seq AND e.type IN ('email_opened', 'email_clicked')
"""


def earlier_hits(session: Session, recipients: Sequence[Values], since: datetime, until: datetime) -> list[Row[Any]]:
    """What was judged before of recipients (``lead_id``, ``send_id``, ``seq``) within a span of time."""
    bound = "CAST(:{} AS timestamptz)" if is_postgresql(session) else ":{}"
    statement = _EARLIER.format(
        recipients=rowset(session, _RECIPIENT), since=bound.format("since"), until=bound.format("until")
    )
    values = {"rows": as_rows(recipients), "since": to_text(since), "until": to_text(until)}
    return list(run(session, statement, values, writes=False).all())


def change_verdicts(session: Session, rows: Sequence[Values]) -> None:
    """Give engagements (``tracked_at`` as canonical text, ``id``) another ``verdict``."""
    if not rows:
        return
    columns = {"tracked_at": "timestamptz", "id": "bigint", "verdict": "text"}
    statement = (
        f"UPDATE marketing_engagements AS e SET verdict = s.verdict FROM {rowset(session, columns)}"
        f" WHERE {of_tenant(session, 'e')} AND e.tracked_at = s.tracked_at AND e.id = s.id"
    )
    run(session, statement, {"rows": as_rows(rows)}, writes=True)


def recipient_verdicts(session: Session, keys: Sequence[Values]) -> list[Row[Any]]:
    """(send_id, seq, type, verdict), each that occurs among all engagements of ``lead_id``, ``send_id``, ``seq``."""
    if not keys:
        return []
    statement = (
        f"SELECT DISTINCT e.send_id, e.seq, e.type, e.verdict FROM {rowset(session, _RECIPIENT)}"
        " CROSS JOIN marketing_engagements e WHERE e.tenant_id = :tenant_id AND e.lead_id = s.lead_id"
        " AND e.send_id = s.send_id AND e.seq = s.seq"
    )
    return list(run(session, statement, {"rows": as_rows(keys)}, writes=False).all())


def known_recipients(session: Session, keys: Sequence[Values]) -> list[Row[Any]]:
    """What is remembered of recipients (``send_id``, ``seq``, ``type``)."""
    columns = {"send_id": "bigint", "seq": "bigint", "type": "text"}
    statement = (
        f"SELECT r.send_id, r.seq, r.type, r.verdict, r.first_at FROM {rowset(session, columns)}"
        " CROSS JOIN marketing_recipient_engagements r WHERE r.tenant_id = :tenant_id AND r.send_id = s.send_id"
        " AND r.seq = s.seq AND r.type = s.type"
    )
    return list(run(session, statement, {"rows": as_rows(keys)}, writes=False).all())


def remember_recipients(session: Session, rows: Sequence[Values]) -> None:
    """Remember verdict and further ``hits`` per recipient and type; ``first_at`` stays what it was."""
    if not rows:
        return
    columns = {
        "send_id": "bigint",
        "seq": "bigint",
        "type": "text",
        "verdict": "text",
        "first_at": "timestamptz",
        "hits": "bigint",
    }
    names = ", ".join(columns)
    statement = (
        f"INSERT INTO marketing_recipient_engagements AS r (tenant_id, {names})"
        f" SELECT :tenant_id, {', '.join(f's.{name}' for name in columns)} FROM {rowset(session, columns)}"
        " WHERE true ORDER BY s.send_id, s.seq, s.type ON CONFLICT (tenant_id, send_id, seq, type)"
        " DO UPDATE SET hits = r.hits + excluded.hits, verdict = excluded.verdict"
    )
    run(session, statement, {"rows": as_rows(rows)}, writes=True)


def ledger_counts(session: Session, send_id: int) -> Sequence[Row[Any]]:
    """(state, reason, n): what a send's numbers are derived from."""
    return run(
        session,
        "SELECT state, CASE WHEN state = 'skipped' THEN reason END AS reason, count(*) AS n"
        " FROM marketing_deliveries WHERE tenant_id = :tenant_id AND send_id = :send_id GROUP BY 1, 2",
        {"send_id": send_id},
        writes=False,
    ).all()
