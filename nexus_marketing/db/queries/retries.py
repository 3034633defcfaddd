"""Recipients whose turn comes again: gathered into chunks of their own."""

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import Row
from sqlalchemy.orm import Session

from nexus_marketing.db.queries.deliveries import GATHERED
from nexus_marketing.db.queries.rowsets import among, as_among, is_postgresql
from nexus_marketing.db.tenancy import run, run_for_all


def sends_with_due_rows(session: Session) -> list[Row[Any]]:
    """(tenant_id, send_id) of running sends with recipients whose retry is due."""
    return list(
        run_for_all(
            session,
            "SELECT s.tenant_id, s.id AS send_id FROM marketing_sends s WHERE s.status = 'running' AND EXISTS ("
            " SELECT 1 FROM marketing_deliveries d WHERE d.tenant_id = s.tenant_id AND d.send_id = s.id"
            " AND d.due_at IS NOT NULL AND d.due_at <= nexus_now()) ORDER BY s.id LIMIT 100",
            writes=False,
        )
    )


_DUE = """
SELECT seq FROM marketing_deliveries
WHERE tenant_id = :tenant_id AND send_id = :send_id AND due_at IS NOT NULL AND due_at <= nexus_now()
  AND state = 'planned'
ORDER BY due_at, seq LIMIT :size
"""
_ADD_CHUNK = """
INSERT INTO marketing_delivery_chunks (tenant_id, send_id, chunk_no, seq_lo, seq_hi, seqs, waits_for)
SELECT :tenant_id, :send_id, coalesce(max(chunk_no), 0) + 1, :lo, :hi, CAST(:seqs AS {json}), :waits_for
FROM marketing_delivery_chunks WHERE tenant_id = :tenant_id AND send_id = :send_id
"""


def open_retry_chunk(session: Session, send_id: int, size: int) -> int:
    """Gather due recipients into a chunk of their own; the caller holds the send's row lock."""
    seqs = sorted(run(session, _DUE, {"send_id": send_id, "size": size}, writes=False).scalars())
    if not seqs:
        return 0
    run(
        session,
        "UPDATE marketing_deliveries SET due_at = :gathered WHERE tenant_id = :tenant_id AND send_id = :send_id"
        " AND seq = :seq",
        [{"send_id": send_id, "seq": seq, "gathered": GATHERED} for seq in seqs],
        writes=True,
    )
    _add_chunk(session, send_id, seqs)
    return len(seqs)


def _add_chunk(session: Session, send_id: int, seqs: Sequence[int], waits_for: str | None = None) -> None:
    kind = "jsonb" if is_postgresql(session) else "text"
    values = {"send_id": send_id, "lo": seqs[0], "hi": seqs[-1], "seqs": str(list(seqs)), "waits_for": waits_for}
    run(session, _ADD_CHUNK.format(json=kind), values, writes=True)


_PUT_ASIDE = """
UPDATE marketing_deliveries
SET due_at = :gathered, reason = CASE WHEN reason = 'ambiguous' THEN reason ELSE 'rate' END
WHERE tenant_id = :tenant_id AND send_id = :send_id AND seq {among} AND seq BETWEEN :lo AND :hi AND state = 'planned'
"""


def put_aside(session: Session, send_id: int, waiting: Mapping[str, Sequence[int]]) -> None:
    """Give recipients who wait for the rates of domains chunks of their own, one for each domain.

    The caller holds the send's row lock, and has proved that it holds the chunk that they come from. Whoever may have got
    the message keeps that mark, and the account beside it.

    Args:
        session: of the transaction.
        send_id: whose recipients they are.
        waiting: domain → ``seq`` of whoever waits for it.
    """
    for domain, seqs in sorted(waiting.items()):
        ordered = sorted(seqs)
        values = {"send_id": send_id, "seqs": as_among(session, ordered), "lo": ordered[0], "hi": ordered[-1]}
        values["gathered"] = GATHERED
        run(session, _PUT_ASIDE.format(among=among(session, "seqs")), values, writes=True)
        _add_chunk(session, send_id, ordered, domain)
